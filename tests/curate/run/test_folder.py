"""Which run a command takes where none is named, and what it says of one that is not there."""

import pytest

from curate.run import folder, overrides
from curate.run.config import RunConfig
from curate.run.schema import UserError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Make runs that are curated, or trained on the curation of another."""
    monkeypatch.setattr(overrides, "_arguments", [])

    def make(name, data=None):
        stage = tmp_path / name / ("finetune" if data else "curate")
        marker = stage / "checkpoints/step-00000001" if data else stage
        marker.mkdir(parents=True)
        (stage / "manifest.json").write_text("{}")
        (stage / "config.yaml").write_text(f"data: {{run: {data or 'null'}}}")
        return tmp_path

    return make


def test_the_only_run_is_taken(runs, capsys):
    root = runs("mine")
    runs("later", data="mine")
    (root / "unfinished" / "curate").mkdir(parents=True)
    for kind, section, name in (
        (folder.CURATED, "train", "mine"),
        (folder.TRAINED, "evaluate", "later"),
    ):
        run = RunConfig(root=str(root), name=None)
        folder.settle(run, kind, section)
        assert run.name == name
        assert f"{root / name}, the only {kind.word} run there" in capsys.readouterr().out
    run = RunConfig(root=str(root), name="typed")
    folder.settle(run, folder.CURATED, "train")
    assert run.name == "typed"


def test_of_several_the_lines_to_type_are_listed(runs):
    for name in ("b", "a b"):
        root = runs(name)
    overrides.remember(["method=full", f"run.root={root}"], "train")
    with pytest.raises(UserError) as refused:
        folder.only(root, folder.CURATED, "train")
    assert str(refused.value).splitlines() == [
        f"{root} holds 2 curated runs; type one of",
        f"  accelerate launch finetune/train.py method=full 'run.name=a b' run.root={root}",
        f"  accelerate launch finetune/train.py method=full run.name=b run.root={root}",
    ]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (folder.CURATED, "holds no curated run; type first: python -m curate dataset="),
        (folder.TRAINED, "holds no trained run; type first: accelerate launch finetune/train.py"),
    ],
)
def test_without_a_run_the_command_before_is_named(tmp_path, kind, says):
    with pytest.raises(UserError, match=says):
        folder.only(tmp_path / "nowhere", kind, "evaluate")


def test_a_mistyped_name_lists_those_that_there_are(runs):
    root = runs("photographs")
    runs("drawings")
    folder.refuse_unknown(root / "drawings", folder.CURATED)
    with pytest.raises(UserError, match=r"holds drawings, photographs\. Type run\.name=photogr"):
        folder.refuse_unknown(root / "photographs2", folder.CURATED)
    folder.refuse_unknown(root / "new", folder.TRAINED)  # nothing to choose from


def test_a_training_that_was_stopped_early_is_named_with_its_curation(runs):
    root = runs("mine")
    runs("done", data="mine")
    runs("begun", data="mine")
    (root / "begun/finetune/checkpoints/step-00000001").rmdir()
    with pytest.raises(UserError, match=r"or first: .*run\.name=begun .*data\.run=mine$"):
        folder.refuse_unknown(root / "begun", folder.TRAINED)
