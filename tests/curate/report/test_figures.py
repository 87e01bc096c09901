"""The figures identify rules by name and count a rule with a minimum and a maximum once."""

import pandas as pd
import pytest

from curate.decide.shuffled_captions import Null
from curate.decide.stage import Verdicts
from curate.report import figures
from tests.curate.small_ledgers import table_of

PAIRS = {
    "": 5,
    "unreadable: truncated": 2,
    "unreadable: not an image": 1,
    "words < 2": 3,
    "words > 9": 4,
    "words_per_line > 3": 2,
    "my score is missing": 1,
    "my score < 0.5": 2,
}


@pytest.fixture
def verdicts():
    reasons = [reason for reason, count in PAIRS.items() for _ in range(count)]
    status = ["kept" if not r else "unreadable" if r[0] == "u" else "dropped" for r in reasons]
    ledger = pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(len(reasons))],
            "rule": [reason.partition(":")[0] for reason in reasons],
            "status": status,
            "reason": reasons,
            "kept": [reason == "" for reason in reasons],
            "split": ["train" if reason == "" else "" for reason in reasons],
            "duplicate_group": [f"{i // 3:016x}" for i in range(len(reasons))],
            "copy_group": [f"{i:016x}" for i in range(len(reasons))],
            "clip_model": "small 0",
            "clip_similarity": 0.3,
        }
    )
    steps = [("unreadable", 3), ("words", 3), ("words", 4), ("words_per_line", 2)]
    steps += [("my score", 1), ("my score", 2), ("idle", 0)]
    return Verdicts(
        table_of(ledger), steps, None, "no cut", Null(pd.Series(dtype="float32").to_numpy())
    )


def test_groups_of_the_sides_and_of_siblings(verdicts):
    found = figures.summarise(verdicts, [])["split"]
    assert found["groups"] == {"train": 2, "val": 0, "test": 0}  # of 0 1 2 and 3 4
    assert found["siblings"] == {"groups": 2, "pictures": 5, "loosened": 0, "level": None}
    assert found["leaks"] == {}


def test_a_rule_with_a_minimum_and_a_maximum_is_one_row(verdicts):
    rules = figures.summarise(verdicts, [])["rules"]
    assert [(rule["rule"], rule["dropped"], rule["left"]) for rule in rules] == [
        ("unreadable", 3, 17),
        ("words", 7, 10),
        ("words_per_line", 2, 8),
        ("my score", 3, 5),
        ("idle", 0, 5),
    ]


def test_planted_mismatches_of_which_there_are_none_or_nothing_else():
    """``dataset.mismatch=1`` leaves no true pair, and the share of none is none."""
    ledger = pd.DataFrame(
        {
            "clip_similarity": 0.3,
            "planted_mismatch": [True] * 4,
            "rule": ["clip_similarity"] + [""] * 3,
        }
    )
    found = figures.describe_planted(figures.planted(table_of(ledger)))
    assert found == "planted mismatches: 1 of 4 dropped (25.0%), 0 of 0 true pairs kept"
    none = figures.describe_planted(
        figures.planted(table_of(ledger.assign(planted_mismatch=False)))
    )
    assert none == "planted mismatches: 0 of 0 dropped, 3 of 4 true pairs kept (75.0%)"
