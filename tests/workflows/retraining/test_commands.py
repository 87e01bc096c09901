"""What was typed and what the experiment holds become three commands, or are refused."""

import shlex
import sys
from pathlib import Path

import pytest

from curate.run import experiment
from curate.run.schema import UserError
from workflows.retraining import commands
from workflows.retraining.commands import programs, series_name, settings_of, split
from workflows.retraining.config import RetrainConfig, SeriesConfig

NONE = {"curate": [], "train": [], "evaluate": []}
EXPERIMENT = """
curate: {run.name: drawings, dataset: folder, dataset.root: pictures}
train: {run.name: drawings, optim.lr: 0.5, hub_token: null}
evaluate: {grid.items: 3}
retrain: {keep: 7}
""".replace(", hub_token: null", "")


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def written(text=EXPERIMENT, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return f"experiment={name}"

    yield written
    commands.remember([], {})


def of_command(*arguments, **config):
    own, handed = split(arguments)
    commands.remember(arguments, handed)
    assert own is not None
    return commands.of_command(RetrainConfig(**config))


def test_the_part_of_each_command():
    own, handed = split(
        ["experiment=demo", "+train.optim.lr=1", "curate.split.val=0.2", "keep=2", "--why", "--json", "-m",
         "trainer=3", "evaluate=3", "run.name=train.x"]
    )  # fmt: skip
    assert own == [
        "experiment=demo", "keep=2", "why=true", "json=true", "-m", "trainer=3", "evaluate=3", "run.name=train.x",
    ]  # fmt: skip
    assert handed == {"curate": ["split.val=0.2"], "train": ["optim.lr=1"], "evaluate": []}


def test_settings_are_composed_as_the_commands_would(write):
    found = settings_of(write(), {**NONE, "train": ["optim.lr=0.25", "method=full"]})
    flat = found.flat()
    assert flat["curate: dataset.root"] == "pictures"
    assert flat["train: optim.lr"] == "0.25"
    assert flat["train: method.name"] == "full"
    assert flat["evaluate: grid.items"] == "3"
    assert not [
        key for key in flat if key.split(": ")[1] in ("run.name", "data.run", "gate.against")
    ]
    assert found.files == (str(Path.cwd() / "mine.yaml"),)


def test_what_differs_from_run_to_run_comes_last(write):
    found = settings_of(write(), {**NONE, "train": ["optim.lr=0.25"]})
    assert found.arguments("train", "runs", "mine-0003", ["method.init=x"]) == [
        f"experiment={Path.cwd()}/runs/mine-0003/experiment.yaml", "optim.lr=0.25", "method.init=x", "run.root=runs", "run.name=mine-0003",
    ]  # fmt: skip
    bare = settings_of("", {**NONE, "curate": ["dataset=folder", "dataset.root=x"]})
    assert bare.arguments("evaluate", "r", "n") == ["run.root=r", "run.name=n"]
    assert bare.files == ()


def test_a_run_keeps_the_experiment_as_it_was(write, tmp_path):
    """Of the commands only, and with every value as YAML read it; the retraining's own may hold secrets."""
    text = EXPERIMENT + "\nsample: {seed: 3}\n"
    text = text.replace(
        "pictures}", """'1e-4', filters: none, run.cache_gb: 1e-5, split.seed: 7}"""
    )
    found = settings_of(write(text), NONE)
    write("train: {optim.lr: 9}")
    found.keep(tmp_path)
    sections, before = experiment.read(tmp_path / "experiment.yaml"), tmp_path / "before.yaml"
    before.write_text(text)
    asked = experiment.read(before)
    assert sections == {name: asked[name] for name in ("curate", "train", "evaluate")}
    assert "dataset.root='1e-4'" in sections["curate"]
    stamp = (tmp_path / "experiment.yaml").stat()
    found.keep(tmp_path)
    assert (tmp_path / "experiment.yaml").stat() == stamp
    settings_of("", {**NONE, "curate": ["dataset=folder"]}).keep(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_experiment_that_is_written_while_it_is_read_is_read_again(write, tmp_path, monkeypatch):
    argument, real = write(), experiment.read

    def read(path):
        monkeypatch.setattr(experiment, "read", real)
        found = real(path)
        write(EXPERIMENT.replace("0.5", "0.25"))
        return found

    monkeypatch.setattr(experiment, "read", read)
    found = settings_of(argument, NONE)
    assert found.flat()["train: optim.lr"] == "0.25"
    assert "optim.lr: 0.25" in found.experiment


def test_a_rule_against_the_promoted_run_waits_for_one(write):
    """An evaluation without one refuses its settings, after hours."""
    key = "gate.rules.not_worse_than_run.threshold=0.02"
    found = settings_of(
        write(), {**NONE, "evaluate": [key, "gate.rules.captions_matter.threshold=0"]}
    )
    assert key not in found.arguments("evaluate", "r", "n")
    assert "gate.rules.captions_matter.threshold=0" in found.arguments("evaluate", "r", "n")
    assert key in found.arguments("evaluate", "r", "n", ["gate.against=x"])


def test_a_link_to_an_experiment_stays_one(write, tmp_path):
    write()
    (tmp_path / "latest.yaml").symlink_to("mine.yaml")
    found = settings_of("experiment=latest.yaml", NONE)
    assert found.files == (str(tmp_path / "latest.yaml"),)


def test_the_series_is_named_by_the_experiment_or_as_typed(write):
    argument = write()
    assert of_command(argument)[1].name == "drawings"
    assert of_command(argument, run=SeriesConfig("runs", "mine"))[1].name == "mine"
    assert series_name(write("train: {optim.lr: 1}", "weekly.yaml")) == "weekly"
    assert series_name("experiment=demo") == "demo"


def test_how_a_training_is_started():
    train = str(commands.PACKAGES / "finetune" / "train.py")
    assert programs("")["train"] == [sys.executable, train]
    assert programs("torchrun --nproc-per-node 2")["train"] == [
        "torchrun",
        "--nproc-per-node",
        "2",
        train,
    ]
    assert programs("x")["curate"] == [sys.executable, "-m", "curate"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "what is to be retrained? Type experiment=FILE.yaml, or run.name=NAME"),
        (["experiment=dmo"], "Type experiment=demo"),
        (
            ["experiment=demo", "train.optim.lr=-1"],
            "settings of train: optim.lr=-1 is out of range",
        ),
        (["experiment=demo", "train.optm.lr=1"], "settings of train: there is no key optm.lr"),
        (["experiment=demo", "curate.clip=vitb32"], "settings of curate: clip=vitb32 is no choice"),
        (["experiment=demo", "train.samples=10"], "type train.train.samples=10"),
        (["experiment=demo", "curate.run.name=x"], "type run.name"),
        (["experiment=demo", "train.data.run=x"], "each run trains on its own pictures; remove it"),
        (
            ["experiment=demo", "train.data.runs={a: 1}"],
            "the retraining sets data.runs for each run",
        ),
        (["experiment=demo", "train.data.runs.a=1"], "the retraining sets data.runs for each run"),
        (
            ["experiment=demo", "evaluate.gate.against=x"],
            "compared with the promoted one; remove it",
        ),
        (
            ["experiment=demo", "evaluate.retention.run=demo-0001"],
            "evaluate.retention.run=demo-0001 is a curation of this series",
        ),
        (
            ["experiment=demo", "evaluate.retention.run=demo-0001-photos"],
            "curated from the base's own data, or remove it",
        ),
        (["experiment=demo", "curate.dry_run=10"], "a trial leaves nothing to train on"),
        (
            ["experiment=demo", "curate.split.held_out=x"],
            "heldout_keys.parquet before the first run",
        ),
    ],
)
def test_mistakes_are_answered_by_what_to_type(arguments, says):
    with pytest.raises(UserError) as refused:
        of_command(*arguments)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "train: {data.run: other}",
            "section train: data.run='other': the retraining sets data.run",
        ),
        (
            "evaluate: {gate.against: other}",
            "section evaluate: gate.against='other': the retraining",
        ),
        ("curate: {dataset: folder, dry_run: 5}", "section curate: dry_run=5"),
    ],
)
def test_mistakes_in_an_experiment_are_too(write, text, says):
    with pytest.raises(UserError) as refused:
        of_command(write(text))
    assert says in str(refused.value)


TWO = """
curate: {dataset: folder, clip: starter, split.val: 0.2}
train: {model: starter}
retrain:
  datasets:
    own: {curate: {dataset.root: mine}}
    photos: {weight: 0.3, curate: {dataset.root: others, split.val: 0.1}}
"""


def of_two(argument, *typed, weights=None):
    _, handed = split(typed)
    return settings_of(argument, handed, weights or {"own": 1.0, "photos": 0.3})


def test_each_data_set_has_the_settings_of_all_and_its_own(write):
    found = of_two(write(TWO), "curate.split.test=0.3", "datasets.own.curate.split.val=0.15")
    flat = found.flat()
    assert (flat["curate own: dataset.root"], flat["curate photos: dataset.root"]) == (
        "mine",
        "others",
    )
    assert (flat["curate own: split.val"], flat["curate photos: split.val"]) == ("0.15", "0.1")
    assert (flat["curate own: split.test"], flat["curate photos: split.test"]) == ("0.3", "0.3")
    assert (flat["datasets.own.weight"], flat["datasets.photos.weight"]) == ("1.0", "0.3")
    assert not [key for key in flat if key.startswith("curate:")]
    assert found.arguments("curate photos", "runs", "mine-0003-photos") == [
        f"experiment={Path.cwd()}/runs/mine-0003-photos/experiment.yaml", "dataset.root='others'", "split.val=0.1", "split.test=0.3",
        "run.root=runs", "run.name=mine-0003-photos",
    ]  # fmt: skip
    assert "dataset.root" not in str(found.arguments("train", "runs", "mine-0003"))


def test_what_is_typed_of_a_data_set_goes_to_its_curation():
    own, handed = split(
        [
            "datasets.photos.weight=0.5",
            "datasets.photos.curate.dataset.root=a.curate.b",
            "++datasets.own.curate.clip=x",
        ]
    )
    assert own == ["datasets.photos.weight=0.5"]
    assert handed["curate photos"] == ["dataset.root=a.curate.b"]
    assert handed["curate own"] == ["clip=x"]


@pytest.mark.parametrize(
    ("typed", "change", "says"),
    [
        (["curate.dataset.root=x"], ("", ""), "curate.dataset.root=x is for all data sets, and datasets.own.curate."),
        ([], ("split.val: 0.2", "dataset.root: x"), "section curate: dataset.root='x' is for all data sets"),
        ([], ("others", "mine"), "the data sets own and photos read the same"),
        ([], ("split.val: 0.1", "clip: vit_b32_openai"), "the data sets own and photos have two CLIPs"),
        ([], ("split.val: 0.1", "run.name: x"), "the retraining sets run.name"),
        ([], ("split.val: 0.1", "split.held_out: x"), "what any run held out stays held out"),
        ([], ("split.val: 0.1", "dry_run: 5"), "a trial leaves nothing to train on"),
        (["datasets.phots.curate.split.val=0.1"], ("", ""), "there is no data set phots (listed: own, photos); type datasets.phots.weight=1"),
        (["datasets.photos.curate.split.val=9"], ("", ""), "settings of curate photos: split.val=9 is out of range"),
    ],
)  # fmt: skip
def test_mistakes_about_data_sets_are_named(write, typed, change, says):
    with pytest.raises(UserError) as refused:
        of_two(write(TWO.replace(*change) if change[0] else TWO), *typed)
    assert says in str(refused.value)


def test_a_series_of_several_data_sets_has_a_name_that_a_setting_can_hold(write):
    weights = {"own": {"weight": 1}, "photos": {"weight": 1}}
    with pytest.raises(UserError, match=r"run\.name=it's: with several data sets"):
        of_command(write(TWO), run=SeriesConfig("runs", "it's"), datasets=weights)
    assert (
        of_command(write(TWO), run=SeriesConfig("runs", "its"), datasets=weights)[1].name == "its"
    )


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        ("torchrum --nproc-per-node 2", "there is no program torchrum; type its path, or launch="),
        ("bash -c 'x", "a quotation has no end"),
    ],
)
def test_a_launch_that_starts_nothing_is_refused_first(write, launch, says):
    with pytest.raises(UserError) as refused:
        of_command(write(), launch=launch)
    assert says in str(refused.value)
    of_command(write(), launch=f"{shlex.quote(sys.executable)} -X dev")


def test_a_name_that_is_no_folder_is_refused(write):
    with pytest.raises(UserError, match=r"run\.name=\.hidden is no name of a folder"):
        of_command(write("train: {optim.lr: 1}", ".hidden.yaml"), run=SeriesConfig("runs", None))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("notify.url=https://x/geheim", "notify.url=***"),
        ("+notify.command=mail -p geheim", "+notify.command=***"),
        ("notify={url: geheim}", "notify=***"),
        ("registry.mlflow.url=http://me:geheim@h", "registry.mlflow.url=***"),
        ("+registry={mlflow: {url: geheim}}", "+registry=***"),
        ("registry.mlflow={url: geheim}", "registry.mlflow=***"),
        ("registry.mlflow.model=x", "registry.mlflow.model=x"),
        ("hub.token=geheim", "hub.token=***"),
        ("notify.timeout_s=3", "notify.timeout_s=3"),
        ("train.optim.lr=3", "train.optim.lr=3"),
        ("--json", "--json"),
    ],
)
def test_arguments_are_written_down_without_secrets(text, kept):
    assert commands.without_secrets(text) == kept
