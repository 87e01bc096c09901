"""What a retraining writes down of itself is read as it was written, or refused."""

import json

import pytest

from curate.run.schema import UserError
from workflows.retraining.record import Change, Record, Step, now, run_name

RECORD = Record(
    "mine",
    12,
    ("experiment=mine.yaml",),
    now(),
    inputs="0" * 64,
    changes=(Change("data", "/a.png", "", "new"), Change("setting", "train: optim.lr", "1", "2")),
    provenance={"packages": {"torch": "2"}},
    steps={"curate": Step("then", "now", 0), "evaluate": Step("then", "now", 3)},
    kept=450,
    summary={"kept": [1, 2.5, None]},
)


def test_it_is_read_as_it_was_written(tmp_path):
    RECORD.save(tmp_path)
    assert Record.load(tmp_path) == RECORD
    assert Record.load(tmp_path / "elsewhere") is None
    assert RECORD.run == "mine-0012"
    assert run_name("a", 12345) == "a-12345"


def test_a_further_step_changes_nothing_else():
    more = RECORD.with_step("finetune", Step("a", "b", 0))
    assert list(more.steps) == ["curate", "evaluate", "finetune"]
    assert list(RECORD.steps) == ["curate", "evaluate"]


@pytest.mark.parametrize("damage", ["flip", "cut", "version", "unsealed"])
def test_a_damaged_one_is_refused_with_what_to_do(tmp_path, damage):
    RECORD.save(tmp_path)
    path = tmp_path / "retrain.json"
    text = path.read_text()
    content = json.loads(text)
    if damage == "unsealed":
        del content["checksum"]
    changed = {
        "flip": text.replace('"kept": 450', '"kept": 451'),
        "cut": text[:100],
        "version": text.replace('"version": 1', '"version": 2'),
        "unsealed": json.dumps(content),
    }[damage]
    assert changed != text
    path.write_text(changed)
    with pytest.raises(UserError, match=r"retrain\.json is damaged, .* restore it from a backup"):
        Record.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change("setting", "lr", "1", "2"), "lr: 1, now 2"),
        (Change("data", "/a", "", "new"), "/a: new"),
        (Change("package", "torch", "2.0"), "torch: 2.0, now gone"),
        (Change("first", "nothing was retrained yet"), "nothing was retrained yet"),
    ],
)
def test_a_change_in_words(change, said):
    assert change.sentence() == said
