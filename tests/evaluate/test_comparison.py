"""Planted differences are found with their size and sign, and no others; corrected for their number."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate import comparison
from evaluate.comparison import BETTER, LOSS, SAME, UNKNOWN, WORSE, compare, refuse
from evaluate.judged_runs.judged import open_judged
from tests.evaluate.planted import KEPT, Planted, rewrite, table

KEYS = [f"val-{i:03d}" for i in range(40)]


@pytest.fixture
def runs(tmp_path, results) -> Planted:
    found = Planted(tmp_path, results)
    found.curate("data")
    return found


def compared(*folders):
    opened = [open_judged(folder) for folder in folders]
    return compare(opened, refuse(opened))


def lines(found, pair=0):
    return {line.metric: line for line in found.pairs[pair].lines}


def test_a_better_a_worse_and_an_equal_run(runs):
    first = runs.run("first", -0.20, seed=1)
    others = [
        runs.run("better", -0.23, seed=2),
        runs.run("worse", -0.15, seed=3),
        runs.run("same", -0.20, seed=4),
    ]
    found = compared(first, *others)
    assert [pair.word for pair in found.pairs] == [BETTER, WORSE, SAME]
    for number, true in enumerate((-0.03, 0.05, 0.0)):
        line = lines(found, number)[LOSS]
        assert line.reference == pytest.approx(-0.2, abs=0.005)
        assert line.difference.value == pytest.approx(true, abs=0.005)
        assert line.difference.low < true < line.difference.high
        assert (line.difference.n, line.difference.groups, line.difference.on) == (40, 40, "val")
    assert found.comparisons == 12  # four losses of three pairs
    assert found.pairs[0].sentence.startswith(
        "The held-out loss of better is lower than that of first: -2.9 points ["
    )
    assert found.pairs[0].sentence.endswith("Better in: composition; structure; detail.")
    assert (
        "No difference in held-out loss between same and first is shown" in found.pairs[2].sentence
    )


def test_the_difference_is_that_of_a_loop_over_groups(runs):
    """Against losses computed cell by cell, without the product's functions."""

    def join(rows):
        rows.loc[rows["key"].isin(KEYS[:5]), "duplicate_group"] = "one"
        return rows

    rewrite(runs.root / "data" / "curate", "val", join)
    found = compared(runs.run("a", -0.1, seed=1), runs.run("b", -0.2, seed=2))
    base, one, two = table(KEYS, 0, 0), table(KEYS, -0.1, seed=1), table(KEYS, -0.2, seed=2)
    groups = [[0, 1, 2, 3, 4], *([i] for i in range(5, 40))]
    by_bin = [np.mean([base[g][:, b].astype(float).mean() for g in groups]) for b in range(3)]
    differences = [
        np.mean(
            [
                (two[i, b].astype(float).mean() - one[i, b].astype(float).mean()) / by_bin[b]
                for i in g
                for b in range(3)
            ]
        )
        for g in groups
    ]
    line = lines(found)[LOSS]
    assert line.difference.groups == 36
    assert line.difference.value == pytest.approx(np.mean(differences), rel=1e-6)
    half = (
        2.0301 * np.std(differences, ddof=1) / 6
    )  # t at 0.975 with 35 degrees of freedom, sqrt(36)
    assert line.difference.high - line.difference.value == pytest.approx(half, rel=1e-4)


def test_a_third_can_be_better_where_the_whole_is_not(runs):
    base = table(KEYS, -0.1, seed=1)
    mixed = table(KEYS, -0.1, seed=2)
    mixed[:, 2] *= 0.9  # much noise
    mixed[:, 0] *= 1.1
    first = runs.run("a", losses={"val": base})
    found = lines(compared(first, runs.run("b", losses={"val": mixed})))
    words = {name.removeprefix(f"{LOSS}_"): line.word for name, line in found.items()}
    assert words == {LOSS: SAME, "composition": BETTER, "structure": SAME, "detail": WORSE}


def test_the_order_of_two_runs_changes_the_sign_alone(runs):
    a, b = runs.run("a", -0.1, seed=1), runs.run("b", -0.2, seed=2)
    one, two = lines(compared(a, b)), lines(compared(b, a))
    for name in one:
        there, back = one[name].difference, two[name].difference
        assert back.value == pytest.approx(-there.value, abs=1e-12)
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
        assert two[name].p == pytest.approx(one[name].p)
        assert {one[name].word, two[name].word} in ({BETTER, WORSE}, {SAME})


def test_losses_are_in_units_of_the_first_runs_base(runs):
    """The other run began from a base with half the loss and did not change it."""
    first = runs.run("first", -0.2, seed=1)
    other = runs.run("other", -0.5, base=-0.5, origin={"base": "x" * 64}, seed=2)
    found = compared(first, other)
    line = lines(found)[LOSS]
    assert line.reference == pytest.approx(-0.2, abs=0.01)
    assert line.other == pytest.approx(-0.5, abs=0.01)
    assert found.runs[0].base != found.runs[1].base


def test_the_kept_checkpoint_may_be_the_base(runs):
    found = compared(runs.run("a", kept=0), runs.run("b", -0.1))
    assert lines(found)[LOSS].reference == pytest.approx(0, abs=1e-12)
    assert found.pairs[0].word == BETTER


def test_test_pictures_are_taken_where_there_are_enough(runs):
    runs.curate("tested", val=40, test=40)
    sides = {split: [f"{split}-{i:03d}" for i in range(40)] for split in ("val", "test")}
    few = {**sides, "test": sides["test"][:31]}
    a = runs.run("a", data="tested", keys=sides)
    assert compared(a, runs.run("b", data="tested", keys=sides)).on == "test"
    assert compared(a, runs.run("c", data="tested", keys=few)).on == "val"
    without = runs.run("d", data="tested", keys={"val": sides["val"]})
    assert compared(a, without).on == "val"


def test_too_few_groups_are_not_judged(runs):
    found = compared(
        runs.run("a", keys={"val": KEYS[:31]}), runs.run("b", -0.5, keys={"val": KEYS})
    )
    assert not found.decidable
    assert found.comparisons == 0
    for line in found.pairs[0].lines:
        assert line.word == UNKNOWN
        assert line.difference.value is None
        assert line.difference.reason == "only 31 groups of pictures in common; at least 32 needed"
    assert "was not measured: only 31 groups" in found.pairs[0].sentence
    assert compared(runs.root / "b", runs.run("c", keys={"val": KEYS[:32]})).decidable


def test_a_difference_that_does_not_count_is_none(runs):
    exact = table(KEYS, -0.1, 0)
    noise = np.random.default_rng(5).normal(0, 1e-5, exact.shape)
    first = runs.run("a", losses={"val": exact})
    line = lines(
        compared(first, runs.run("b", losses={"val": (exact * (0.999 + noise)).astype(np.float32)}))
    )[LOSS]
    assert line.corrected < 1e-6
    assert line.word == SAME
    assert "0.2% or less does not count" in line.why


def test_what_is_not_a_number_is_not_measured(runs):
    broken = table(KEYS)
    broken[3, 1, 0] = np.nan
    found = compared(runs.run("a"), runs.run("b", losses={"val": broken}))
    assert found.pairs[0].word == UNKNOWN
    assert lines(found)[LOSS].difference.reason == "not a finite number"
    assert lines(found)[f"{LOSS}_detail"].word == SAME  # whose noise levels are numbers
    assert found.pairs[0].moved == ()


def test_stored_values_of_a_metric_are_compared_where_both_have_them(runs):
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, 40)

    def stored(shift, instrument="with CLIP x", on="val", keys=KEYS):
        noise = rng.normal(0, 0.01, 40)[: len(keys)]
        return {"clip_kept": (on, keys, values[: len(keys)] + shift + noise, instrument)}

    first = runs.run("a", scores=stored(0))
    line = lines(compared(first, runs.run("b", scores=stored(0.05))))["clip_kept"]
    assert line.word == BETTER  # more is better
    assert line.difference.value == pytest.approx(0.05, abs=0.01)
    assert lines(compared(first, runs.run("c", scores=stored(-0.05))))["clip_kept"].word == WORSE
    for name, scores, why in (
        ("d", {}, "not stored by the evaluation of d"),
        ("e", stored(0, "with CLIP y"), "measured differently: with CLIP x; in e with CLIP y"),
        ("f", stored(0, on="base pictures"), "measured on val, and in f on base pictures"),
        (
            "g",
            stored(0, keys=KEYS[:20]),
            "only 20 groups of pictures in common; at least 32 needed",
        ),
    ):
        line = lines(compared(first, runs.run(name, scores=scores)))["clip_kept"]
        assert line.word == UNKNOWN
        assert why in line.difference.reason


def test_the_pictures_that_moved_most(runs):
    one, two = table(KEYS, 0, 0), table(KEYS, 0, 0)
    two[7] *= 0.5
    two[8] *= 0.8
    two[20] *= 1.3
    moved = (
        compared(runs.run("a", losses={"val": one}), runs.run("b", losses={"val": two}))
        .pairs[0]
        .moved
    )
    assert [(m.key, m.difference < 0) for m in moved] == [
        ("val-007", True),
        ("val-008", True),
        ("val-020", False),
    ]
    assert moved[0].caption == "white bar"  # of the 14th picture
    many = compared(runs.root / "a", runs.run("c", seed=9)).pairs[0].moved
    assert (
        len([m for m in many if m.difference < 0])
        == len([m for m in many if m.difference > 0])
        == 8
    )
    sizes = [m.difference for m in many]
    assert sizes[:8] == sorted(sizes[:8])
    assert sizes[8:] == sorted(sizes[8:], reverse=True)


def test_only_keys_that_differ_are_listed(runs):
    found = compared(
        runs.run("a", finetune={"method": {"name": "lora", "rank": 8}}),
        runs.run("b", finetune={"optim": {"lr": 1e-5}, "method": {"name": "full"}}),
    )
    assert found.configuration == {
        "method.name": ("lora", "full"),
        "method.rank": (8, None),
        "optim.lr": (1e-4, 1e-5),
    }


def test_alarms_and_coverage_are_at_their_nominal_level():
    """Equal runs on 40 groups: Holm keeps the chance of any alarm at 5 %; 95 % intervals hold the truth."""
    rng = np.random.default_rng(0)
    alarms, covered, groups = 0, 0, [str(i) for i in range(40)]
    for _ in range(400):
        measured = []
        for metric in range(4):
            sides = [np.zeros(40), rng.normal(0.01 * metric, 0.03, 40)]
            true = 0.01 * metric
            line, differences, names = comparison._line(LOSS, sides, groups, "val")
            covered += line.difference.low < true < line.difference.high
            measured.append((line, differences - true, names))
        (judged,) = comparison._corrected([measured])
        alarms += any(line.corrected < 0.05 for line in judged)
    assert 0.93 < covered / 1600 < 0.97
    assert alarms / 400 < 0.08


def test_the_file_has_no_odd_numbers(runs, tmp_path):
    import json

    broken = table(KEYS)
    broken[3] = np.nan
    found = compared(runs.run("a"), runs.run("b", losses={"val": broken}))
    comparison.save(found, tmp_path / "compare.json")
    stored = json.loads((tmp_path / "compare.json").read_text())
    assert stored["schema_version"] == 1
    assert stored["pairs"][0]["lines"][0]["difference"]["value"] is None
    assert stored["runs"][0]["kept"] == KEPT
