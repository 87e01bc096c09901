"""What a user sees when the configuration is wrong, whichever command it is."""

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from curate.pipeline.config import CurateConfig  # its import registers the schemas
from curate.run import cli as command
from curate.run import overrides
from curate.run.next_command import next_arguments
from curate.run.overrides import add_entry, prepare, quote_path, value_of
from curate.run.refusals import explain
from curate.run.remote import Unreachable
from curate.run.schema import UserError, to_dataclass


@dataclasses.dataclass
class Inner:
    rate: float = 0.5

    def __post_init__(self):
        if not 0 <= self.rate <= 1:
            raise UserError(f"inner.rate={self.rate} must lie in [0, 1]")


@dataclasses.dataclass
class Outer:
    name: str = "x"
    inner: Inner = dataclasses.field(default_factory=Inner)
    free: dict[str, int] = dataclasses.field(default_factory=dict)


@pytest.fixture
def composed(tmp_path):
    ConfigStore.instance().store(name="_outer_for_test", node=Outer)
    (tmp_path / "main.yaml").write_text("defaults: [_outer_for_test, _self_]\n")

    def compose_with(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("main", overrides=list(overrides))

    return compose_with


def test_becomes_the_dataclass(composed):
    config = to_dataclass(composed("inner.rate=0.25", "+free.a=1"), Outer)
    assert config == Outer(inner=Inner(rate=0.25), free={"a": 1})


@pytest.mark.parametrize(
    ("override", "key"), [("+typo=1", "typo"), ("++inner.typo=1", "inner.typo")]
)
def test_keys_added_beside_the_schema_are_refused(composed, override, key):
    with pytest.raises(UserError, match=f"'{key}'"):
        to_dataclass(composed(override), Outer)


def test_a_value_out_of_range_names_its_key(composed):
    with pytest.raises(UserError, match=r"inner\.rate=2"):
        to_dataclass(composed("inner.rate=2"), Outer)


@pytest.mark.parametrize("mistake", ["inner.rate=abc", "innr.rate=1", "inner.rate=null"])
def test_mistakes_leave_with_2_and_one_paragraph(composed, capsys, monkeypatch, mistake):
    monkeypatch.setattr("sys.argv", ["curate", mistake])
    with pytest.raises(SystemExit) as leaving:
        command.run(lambda: composed(mistake))
    assert leaving.value.code == command.EXIT_USER_ERROR
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    assert mistake.split("=")[0].split(".")[0] in said


def test_a_wrong_choice_lists_the_right_ones(tmp_path, monkeypatch):
    (tmp_path / "color").mkdir()
    (tmp_path / "color" / "green.yaml").write_text("")
    (tmp_path / "main.yaml").write_text("defaults: [color: green]\n")
    monkeypatch.setattr("sys.argv", ["curate", "color=gren"])
    with (
        initialize_config_dir(str(tmp_path), version_base="1.3"),
        pytest.raises(MissingConfigException) as caught,
    ):
        compose("main", overrides=["color=gren"])
    said = explain(caught.value)
    assert said.startswith("color=gren is no choice; accepted: green. Type color=green.")


ODD_PATHS = [
    *("/a=b", "/a,b", "/x/(1) pics", "/it's", "/a[1]", "/a b", "/ünï", "/a{b}", "/plain"),
    *(
        "2024_10",
        "2024.10",
        "1e3",
        "true",
        "[2024] pics",
        "{a}",
        "'x",
        " x ",
        "~nobody-here/x",
    ),
    *("C:\\pics\\", "/a,b\\", "a\\'b", "/a\\\\", '"'),
]


@pytest.mark.parametrize("value", ODD_PATHS)
@pytest.mark.parametrize("plus", ["", "++"])
def test_any_path_reaches_the_configuration_as_typed(composed, value, plus):
    argument = quote_path(f"{plus}run.root={value}")
    assert composed(argument.replace("run.root", "name")).name == value


def test_paths_of_globs_are_quoted_and_lists_are_not():
    assert quote_path("dataset.path=a/{0..9}.tar") == "dataset.path='a/{0..9}.tar'"
    assert quote_path("dataset.path=a/[01]*.csv") == "dataset.path='a/[01]*.csv'"
    assert quote_path("dataset.path=[a.tar,b.tar]") == "dataset.path=[a.tar,b.tar]"


def test_entries_of_mappings_need_no_plus():
    arguments = [
        *("filters.columns.x.minimum=1", "heads.nsfw.path=a", "filters.columns.x=null"),
        *("filters.columns={x: {minimum: 1}}", "heads.a-b.path=a"),
    ]
    assert [add_entry(a) for a in arguments] == [f"++{a}" for a in arguments]
    for argument in ("++filters.columns.x.minimum=1", "filters.caption.min_words=3", "heads=null"):
        assert add_entry(argument) == argument


def test_the_name_of_a_clip_reaches_the_configuration_as_typed():
    argument = "filters.clip_similarity.made_for=models/a=b (1)"
    assert quote_path(argument) == argument.replace("=", "='", 1) + "'"


def test_a_path_may_begin_at_home_and_what_is_quoted_stays(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_path("dataset.root=~/pics") == "dataset.root='/home/me/pics'"
    for argument in (
        *(
            "dataset.root='/a=b'",
            'run.name="a\\"b"',
            "run.root=${oc.env:HOME}/x",
            "train.samples=9",
        ),
        "clip.name=null",
    ):
        assert quote_path(argument) == argument


def test_a_command_quotes_paths(monkeypatch):
    monkeypatch.setattr("sys.argv", ["curate", "run.root=/a,b"])
    command.run(lambda: None)
    assert command.sys.argv[-1] == "run.root='/a,b'"


@pytest.mark.parametrize("value", ["a=b", "a,b", "{a", "(1)", "Größe", "a: b", "it's, so"])
def test_a_text_that_hydra_cannot_read_reaches_the_configuration_as_typed(composed, value):
    (argument,) = prepare([f"name={value}"])
    assert composed(argument).name == value
    assert value_of(argument) == value


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("datset.rot=/x", "there is no key datset.rot"),
        ("datset.root=/x", "did you mean dataset.root=/x"),
        ("filtrs=none", "did you mean filters=none"),
        ("optim.lr=3", "optim belongs to accelerate launch finetune/train.py"),
    ],
)
def test_the_override_at_fault_is_the_one_named(argument, says):
    error = HydraException(f"Could not override {argument.partition('=')[0]!r}")
    assert says in explain(error, ["dataset=folder", argument], "curate")


def test_a_polite_function_leaves_with_2(capsys):
    @command.polite
    def mistaken(cfg):
        raise UserError(f"{cfg} is wrong; type it right")

    with pytest.raises(SystemExit) as leaving:
        mistaken("key")
    assert leaving.value.code == command.EXIT_USER_ERROR
    assert capsys.readouterr().err == "error: key is wrong; type it right\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the same command again resumes"),
        (errno.EDQUOT, "the same command again resumes"),
        (errno.EACCES, "let this user read it"),
        (errno.EROFS, "let this user read it"),
    ],
)
def test_what_the_file_system_refuses_leaves_with_2_and_one_paragraph(capsys, code, says):
    def refused():
        raise OSError(code, os.strerror(code), "/data/x")

    with pytest.raises(SystemExit) as leaving:
        command.run(refused)
    assert leaving.value.code == command.EXIT_USER_ERROR
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: /data/x: {os.strerror(code)}")
    assert says in said
    assert "\n" not in said


def test_a_message_of_our_own_about_a_file_is_said_as_it_is(capsys):
    def missing():
        raise FileNotFoundError("no such run; type this")

    with pytest.raises(SystemExit):
        command.run(missing)
    assert capsys.readouterr().err == "error: no such run; type this\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("a bug"),
        AssertionError("a bug"),
        MemoryError(),
    ],
)
def test_the_programs_own_errors_keep_their_traceback_and_leave_with_70(capsys, error):
    """Python's own code for them is 1, which is the gate's."""

    def broken():
        raise error

    with pytest.raises(SystemExit) as leaving:
        command.run(broken)
    assert leaving.value.code == command.EXIT_FAILED == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "in broken" in said
    assert str(error) in said


def test_what_cannot_be_reached_now_is_no_bug_and_no_mistake(capsys):
    def broken():
        raise Unreachable("s3://a/b cannot be read; type the same command again")

    with pytest.raises(SystemExit) as leaving:
        command.run(broken)
    assert leaving.value.code == command.EXIT_FAILED
    said = capsys.readouterr().err
    assert said == "error: s3://a/b cannot be read; type the same command again\n"


def test_a_command_that_breaks_inside_hydra_leaves_with_70(tmp_path):
    (tmp_path / "main.yaml").write_text("name: x\n")
    (tmp_path / "broken.py").write_text(
        "import hydra\n"
        "from curate.run import cli\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='main')\n"
        "@cli.polite\n"
        "def main(cfg):\n"
        "    raise ZeroDivisionError(cfg.name)\n"
        "cli.run(main)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(command.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "broken.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 70
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.strip().endswith("ZeroDivisionError: x")


def test_interruption_leaves_with_130(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as leaving:
        command.run(interrupted)
    assert leaving.value.code == command.EXIT_INTERRUPTED
    assert "resumes" in capsys.readouterr().err


def test_multirun_inside_a_launch_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", "-m", "optim.lr=1,2"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        command.run(lambda: None, "train")
    assert "one launch for each job" in capsys.readouterr().err


def test_any_dataclass_error_of_omegaconf_is_explained():
    with pytest.raises(Exception, match="Key") as caught:
        OmegaConf.structured(Outer).merge_with({"nme": 1})
    assert "nme" in explain(caught.value)


def test_the_next_command_gets_this_ones_experiment(monkeypatch):
    """Its file holds that command's settings too; other overrides are this command's own."""
    from curate.run import overrides

    monkeypatch.setattr(overrides, "_arguments", [])
    assert next_arguments(Path("runs/demo")) == "run.name=demo"
    overrides.remember(["-m", "experiment=/my files/a.yaml", "optim.lr=1", "run.name=demo"])
    found = next_arguments(Path("runs/demo"))
    assert found == "'experiment=/my files/a.yaml' run.name=demo"


@pytest.mark.parametrize(
    ("typed", "cut"),
    [
        ([], (0.28, None, None)),
        (["filters.clip_similarity.fraction=0.3"], (None, 0.3, None)),
        (["filters.clip_similarity.false_keep_rate=0.1"], (None, None, 0.1)),
        (["filters.clip_similarity.minimum=0.25"], (0.25, None, None)),
        (["filters=datacomp_clip", "filters.clip_similarity.minimum=0.25"], (0.25, None, None)),
        (["filters.clip_similarity.fraction=null"], (0.28, None, None)),
    ],
)
def test_a_cut_that_is_typed_wins_over_the_presets(typed, cut):
    with initialize_config_dir(str(overrides.CONF), version_base="1.3"):
        composed = compose("curate", overrides.without_rivals(["dataset=coco", *typed]))
    found = to_dataclass(composed, CurateConfig).filters.clip_similarity
    assert (found.minimum, found.fraction, found.false_keep_rate) == cut


def test_two_cuts_that_are_both_typed_stay_for_the_schema_to_refuse():
    both = ["filters.clip_similarity.minimum=0.2", "filters.clip_similarity.fraction=0.3"]
    assert overrides.without_rivals(both) == both
