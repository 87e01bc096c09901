"""Every YAML file composes into its typed schema; a configuration that nothing loads would rot."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from curate.pipeline.config import CurateConfig
from curate.run.help import help_of
from curate.run.keys import SCHEMAS
from curate.run.overrides import add_entry
from curate.run.schema import Typed, UserError, _registered, _walk, to_dataclass
from evaluate.config import EvaluateConfig
from evaluate.sample_config import SampleConfig
from finetune.config import TrainConfig
from workflows.retraining.config import RetrainConfig

CONF = Path(__file__).resolve().parents[1] / "conf"
COMMANDS = {
    "curate": (CurateConfig, ("dataset", "clip", "filters", "engine")),
    "train": (TrainConfig, ("model", "method", "optim")),
    "evaluate": (EvaluateConfig, ("clip", "sampler", "gate")),
    "sample": (SampleConfig, ("clip", "sampler", "model")),
    "retrain": (RetrainConfig, ()),
}
CHOICES = [
    (name, f"{group}={path.stem}")
    for name, (_, groups) in COMMANDS.items()
    for group in groups
    for path in sorted((CONF / group).glob("*.yaml"))
]
# A choice that leaves a value to the user is composed with one, and so is a command that leaves a choice.
CHOSEN = {name: ["dataset=folder"] if name == "curate" else [] for name in COMMANDS}
NEEDS = {"clip=custom": ["clip.name=ViT-B-32"]} | {
    f"dataset={path.stem}": ["dataset.path=table.csv"]
    for path in (CONF / "dataset").glob("*.yaml")
    if "path: ???" in path.read_text()
}


def compose_with(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*CHOSEN[name], *overrides]
        return to_dataclass(compose(name, overrides=overrides), COMMANDS[name][0])


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_compose(name):
    assert isinstance(compose_with(name), COMMANDS[name][0])


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_every_choice_composes(name, choice):
    compose_with(name, choice, *NEEDS.get(choice, []))


def test_every_file_belongs_to_a_command():
    known = {group for _, groups in COMMANDS.values() for group in groups}
    known |= {"hydra", "experiment", "accelerate"}
    assert {path.parent.name for path in CONF.glob("*/*.yaml")} == known
    assert {path.stem for path in CONF.glob("*.yaml")} == set(COMMANDS) == set(SCHEMAS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_choice_and_the_experiments(name):
    text = help_of(name)
    for group in COMMANDS[name][1]:
        listed = re.search(rf"^ *{group}=(\S+(?:\n *\|\S+)*)", text, re.MULTILINE)[1]
        hidden = {"none"} if group == "filters" else set()  # an old name
        if name == "curate":
            hidden |= {"curation"}  # the choice of evaluate and sample
        choices = {path.stem for path in (CONF / group).glob("*.yaml")} - hidden
        assert sorted(re.findall(r"\w+", listed)) == sorted(choices)
        first = re.search(rf"- {group}: (\w+)", (CONF / f"{name}.yaml").read_text())
        if first and first[1] != "null":  # the default
            assert listed.split("|")[0] == first[1]
    assert "experiment=demo|FILE.yaml" in text


def test_what_is_a_path_or_named_freely():
    """Metadata of fields says so; where it is lost, a path with a comma or a bracket ends in an error."""
    special = Typed.of_registered()
    for key in (
        *("run.root", "run.name", "model.path", "clip.name", "heads.aesthetic.path"),
        *("dataset.root", "dataset.path", "dataset.images_dir", "dataset.index", "dataset.spool"),
        *("filters.caption.blocklist", "filters.clip_similarity.made_for", "launch"),
        *("notify.command", "notify.url"),
    ):
        assert special.paths.fullmatch(key), key
    for key in ("dataset.path", "filters.caption.blocklist"):
        assert special.lists.fullmatch(key), key
    for key in ("heads.a.path", "filters.columns.a.minimum", "dataset.leave_out.a"):
        assert special.entries.fullmatch(key), key


def test_every_key_that_is_called_like_a_path_says_so():
    keys = [
        (key, known.metadata)
        for prefix, schema in _registered(ConfigStore.instance().repo)
        for key, _, known in _walk(schema, prefix)
        if re.search(r"(^|_)(root|path|dir|file|folder)$", known.name)
    ]
    assert len(keys) > 8
    assert [key for key, metadata in keys if not metadata.get("path")] == []


def test_heads_and_columns_are_typed_like_any_key():
    arguments = ["heads.aesthetic.path=head.pt", "filters.columns.head_aesthetic.minimum=5"]
    config = compose_with("curate", *map(add_entry, arguments))
    assert config.heads["aesthetic"].path == "head.pt"
    assert config.filters.columns["head_aesthetic"].minimum == 5
    with pytest.raises(UserError, match=r"heads\.x="):
        compose_with("curate", "++heads.x.kind=linear")
