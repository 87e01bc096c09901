"""The key ``experiment=``: a file's settings are as if typed, its mistakes are refused by every command."""

import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from curate.run import cli as command
from curate.run import experiment
from curate.run.keys import SCHEMAS
from curate.run.overrides import CONF
from curate.run.schema import UserError

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = {
    "curate": ["-m", "curate"],
    "train": ["finetune/train.py"],
    "evaluate": ["-m", "evaluate"],
    "sample": ["-m", "evaluate.sample"],
    "retrain": ["-m", "workflows.retrain"],
}
DEMO = {
    "curate": ["run.name=demo", "dataset=openmoji", "dataset.mismatch=0.2"],
    "train": [
        *("run.name=demo", "method=locon", "optim.lr=1e-3", "optim.batch_size=32"),
        *("train.samples=7200", "heldout.items=32", "heldout.every=2400", "checkpoint.every=2400"),
        "export.scale=auto",
    ],
    "evaluate": [
        "run.name=demo",
        "grid.items=64",
        "samples.clip_captions=64",
        "retention.items=32",
    ],
}


CHOSEN = {
    "curate": ["dataset=openmoji"],
    "train": [],
    "evaluate": [],
    "sample": [],
    "retrain": [],
}  # what has to be typed


def composed(section, overrides):
    overrides = [*CHOSEN[section], *overrides]
    import_module(SCHEMAS[section])  # registers what the command registers
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(section, overrides))


def applied(section, *arguments):
    return composed(section, experiment.apply(list(arguments), section))


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return written


def start(command, *arguments):
    return subprocess.run(
        [sys.executable, *COMMANDS[command], *arguments],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("section", DEMO)
def test_the_demo_is_what_these_settings_are(section):
    assert applied(section, "experiment=demo") == composed(section, DEMO[section])


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("experiment/*.yaml")))
@pytest.mark.parametrize("section", SCHEMAS)
def test_every_experiment_composes(section, name):
    applied(section, f"experiment={name}")


@pytest.mark.parametrize("name", ["mine.yaml", "of mine/it's, (a=b).yml"])
def test_a_file_is_named_by_its_path(write, name):
    path = write("train: {method: full, optim: {lr: 1e-5}}", name)
    assert applied("train", f"experiment={path}") == composed(
        "train", ["method=full", "optim.lr=1e-5"]
    )


def test_a_path_may_be_relative_or_begin_at_home(write, monkeypatch):
    path = write("train: {optim.lr: 0.5}")
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    for name in ("mine.yaml", "./mine.yaml", "~/mine.yaml"):
        assert applied("train", f"experiment={name}")["optim"]["lr"] == 0.5


@pytest.mark.parametrize(
    "typed",
    [
        ["experiment=demo", "optim.lr=0.5", "method=full"],
        ["optim.lr=0.5", "method=full", "experiment=demo"],
        ["+experiment=demo", "optim={lr: 0.5}", "method=full"],
    ],
)
def test_what_is_typed_wins(typed):
    found = applied("train", *typed)
    assert found["optim"]["lr"] == 0.5
    assert (found["method"]["name"], "rank" in found["method"]) == ("full", False)
    assert found["train"]["samples"] == 7200


def test_a_file_takes_keys_as_they_are_typed(write):
    path = write(
        """
        curate:
          dataset: table
          dataset.path: ~/a, (1)/b=c.csv
          dataset.leave_out: {status: "404"}
          run: {name: it's}
          heads: {aesthetic: {path: "a,b.pt"}}
          filters.columns.sharpness: {minimum: 0.29}
          filters: {language: {accepted: [en, de]}, caption.blocklist: null}
          filters.captions.keep: best
          clip: custom
          clip.name: ViT-L-14
        """
    )
    found = applied("curate", f"experiment={path}")
    assert found["dataset"]["path"] == str(Path.home() / "a, (1)/b=c.csv")
    assert found["dataset"]["leave_out"] == {"status": "404"}
    assert found["run"]["name"] == "it's"
    assert found["heads"] == {"aesthetic": {"path": "a,b.pt"}}
    assert found["filters"]["columns"] == {"sharpness": {"minimum": 0.29}}
    assert found["filters"]["language"]["accepted"] == ["en", "de"]
    assert found["filters"]["captions"]["keep"] == "best"
    assert found["clip"]["name"] == "ViT-L-14"


def test_a_group_s_choice_and_its_keys_stand_side_by_side(write):
    found = applied("train", f"experiment={write('train: {method.rank: 8, method: locon}')}")
    assert found["method"]["rank"] == 8
    assert "conv1" in found["method"]["targets"]


def test_a_command_without_a_section_gets_nothing(write):
    path = write("train: {optim.lr: 0.5}\nevaluate:\n")
    for section in ("curate", "evaluate"):
        assert experiment.apply([f"experiment={path}", "run.name=x"], section) == ["run.name=x"]


def test_a_value_may_be_left_for_the_command_line(write):
    path = write("curate: {dataset: table, filters: strict}")
    found = applied("curate", f"experiment={path}", "dataset.path=a.csv")
    assert found["dataset"]["path"] == "a.csv"
    bad = write("curate: {dataset: table, dataset.limit: -1}")
    with pytest.raises(UserError, match=r"section curate: dataset\.limit=-1 is out of range"):
        experiment.apply([f"experiment={bad}"], "curate")


def test_options_of_hydra_stay_in_front(write):
    path = write("curate: {split.val: 0.1, run.name: 'a,b'}")
    arguments = ["-m", "split.test=0.1,0.2", f"experiment={path}"]
    assert experiment.apply(arguments, "curate") == [
        "-m", "split.val=0.1", "run.name='a,b'", "split.test=0.1,0.2",
    ]  # fmt: skip


BAD = {
    "curate: {filters.image.min_side: 3}": ["section curate", "min_side", "accepted: min_side_px,"],
    "train: {optim.lr: -1}": ["section train", "optim.lr=-1", "accepted: > 0"],
    "train: {optim.lr: abc}": ["section train", "optim.lr", "'abc'"],
    "train: {method: loar}": ["section train", "method=loar", "Type method=lora"],
    "train: {optim: {momentum: 1}}": ["section train", "momentum", "accepted: ", "lr, beta1"],
    "evaluate: {grid.itms: 3}": ["section evaluate", "itms", "accepted: items,"],
    "evaluate: {heads: {a: {path: b}}}": ["section evaluate", "heads"],
    "trian: {optim.lr: 1}": ["'trian' is no section", "accepted: curate:, train:, evaluate:"],
    "optim.lr: 1": ["'optim.lr' is no section", "accepted: curate:"],
    "train: [optim.lr=1]": ["section train", "are no keys", "optim.lr: 1e-3"],
    "train: {hydra.callbacks.x._target_: os.abort}": ["'hydra.callbacks.x._target_'", "no key"],
    "train: {optim: {lr: 1}, optim.lr: 2}": ["section train", "optim.lr is given twice"],
    "train:\n  optim.lr: 1\n  optim.lr: 2": ["line 3", "duplicate key"],
    "train:\n  x: [1": ["mine.yaml, line"],
    "": ["has no sections"],
    "just words": ["'just words' is no section"],
    "- train": ["has no sections"],
}


@pytest.mark.parametrize("section", SCHEMAS)
@pytest.mark.parametrize("text", BAD)
def test_a_mistake_anywhere_in_the_file_is_refused_by_each_command(write, section, text):
    path = write(text)
    with pytest.raises(UserError) as refused:
        experiment.apply([f"experiment={path}"], section)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    for words in BAD[text]:
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment=dmo"], r"no such experiment; accepted: .*demo.*Type experiment=demo"),
        (["experiment=no/such.yaml"], r"no/such\.yaml is no file; accepted: .*demo"),
        (["experiment=demo", "experiment=x"], "experiment=demo and experiment=x: .* type one"),
        (["-m", "experiment=demo,x"], "no such experiment"),
        (["experiment="], "no such experiment"),
    ],
)
def test_what_names_no_experiment(arguments, says):
    with pytest.raises(UserError, match=says):
        experiment.apply(arguments, "curate")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_sound_command_line(name):
    said = start(name, "typo=1", "experiment=dmo", "--help")
    assert said.returncode == 0
    assert "experiment=demo|FILE.yaml" in said.stdout
    assert "usage: " in said.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_takes_any_name_as_it_is_typed(name, tmp_path):
    odd = ["run.name=it's, (a=b)", f"run.root={tmp_path}/{{a}}, [b]"]
    said = start(name, *CHOSEN[name], *odd, "--cfg", "job", "--package", "run")
    shown = OmegaConf.create(said.stdout)
    assert (shown.root, shown.name) == (f"{tmp_path}/{{a}}, [b]", "it's, (a=b)")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_reads_its_section_and_refuses_the_others_mistakes(name, write, tmp_path):
    good = write(
        "".join(f"{section}: {{run.name: {section[0]}}}\n" for section in COMMANDS),
        "a b.yaml",
    )
    said = start(name, *CHOSEN[name], f"experiment={good}", "--cfg", "job", "--package", "run")
    assert f"name: {name[0]}\n" in said.stdout, said.stderr
    other = next(section for section in COMMANDS if section != name)
    bad = write(f"{other}: {{run.nmae: x}}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    refused = start(name, f"experiment={bad}", f"run.root={tmp_path / 'runs'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 3
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        f"error: {bad}, section {other}: there is no key run.nmae; acc"
    )
    assert "Did you mean run.name=x" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from curate.run import experiment; experiment.apply(['experiment=demo'], 'curate');"
        "print({'torch', 'diffusers', 'pandas', 'pyarrow', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_command_replaces_the_argument_and_remembers_it(monkeypatch):
    from curate.run.overrides import typed

    monkeypatch.setattr("sys.argv", ["curate", "experiment=demo", "run.root=/a,b"])
    command.run(lambda: None, "curate")
    assert command.sys.argv[1:] == [
        "run.name='demo'",
        "dataset='openmoji'",
        "dataset.mismatch=0.2",
        "run.root='/a,b'",
    ]
    assert typed() == ["experiment=demo", "run.root=/a,b"]


def test_a_section_may_leave_the_data_set_to_the_command_line(write):
    path = write("curate: {split.val: 0.2, dataset.limit: 3}")
    assert applied("curate", f"experiment={path}")["dataset"]["limit"] == 3
    bad = write("curate: {split.val: 2, dataset.limit: 3}")
    for section in SCHEMAS:
        with pytest.raises(UserError, match=r"section curate: split\.val=2"):
            experiment.apply([f"experiment={bad}"], section)
