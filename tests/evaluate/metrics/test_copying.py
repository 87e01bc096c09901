"""Copying is seen where it was planted, and nowhere else; the walk back ends where it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from evaluate.measure_config import CopyingConfig
from evaluate.metrics.copying import (
    MARGIN,
    MOST_LOOKS,
    NearestSearch,
    Side,
    compare,
    distances,
    earlier,
    first_without,
    kept_instead,
    most_suspicious,
    reason,
    unrelated,
)

N, D = 48, 64


def side(rng: np.random.Generator, *, towards_own: float = 0.0, style: float = 0.0) -> Side:
    """Drawn pictures that moved from the base's towards their own picture, and towards a style all share."""
    real = rng.normal(size=(N, D)) + 1  # the style of the data is a mean of 1; the base's is 0
    base = rng.normal(size=(N, D))
    drawn = base + towards_own * (real - base) + style * (1 - base.mean(1, keepdims=True))
    drawn += rng.normal(0, 0.2, (N, D))
    keys = [f"k{i}" for i in range(N)]
    return Side(keys, keys, real, base, drawn)


def test_a_planted_copier_is_seen():
    rng = np.random.default_rng(0)
    found = compare(side(rng, towards_own=0.6), side(rng, towards_own=0.1))
    assert found.copies
    assert found.difference.value > 0.2
    assert found.own_train[1].mean() > 0.9
    base, drawn = found.own_train.mean(1)
    said = reason(found, 150)
    assert said.startswith("Step 150 copies training pictures")
    assert f"own for {drawn:.0%}, with the base for {base:.0%}" in said


def test_a_learnt_style_and_followed_captions_are_no_copying():
    """Both sides come much nearer to their own pictures, and the nearest is the caption's own on both."""
    rng = np.random.default_rng(1)
    found = compare(side(rng, style=0.8, towards_own=0.3), side(rng, style=0.8, towards_own=0.3))
    assert found.train.mean() > 0.2
    assert found.val.mean() > 0.2
    assert found.difference.low < 0 < found.difference.high
    assert not found.copies


def test_a_checkpoint_that_is_the_base_has_moved_nowhere():
    rng = np.random.default_rng(2)
    sides = [side(rng) for _ in range(2)]
    same = [Side(s.keys, s.groups, s.real, s.base, s.base) for s in sides]
    found = compare(*same)
    estimate = found.difference
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)
    assert (found.own_train[0] == found.own_train[1]).all()
    assert not found.copies


def test_a_healthy_run_is_seldom_accused():
    """At the margin itself one in forty may be; without copying next to none."""
    rng = np.random.default_rng(3)
    accused = sum(compare(side(rng, style=0.5), side(rng, style=0.5)).copies for _ in range(200))
    assert accused == 0


def test_distances_have_the_unit_of_unrelated_real_pictures():
    rng = np.random.default_rng(4)
    train, val = side(rng, towards_own=0.5), side(rng)
    found = compare(train, val)
    scaled = [Side(s.keys, s.groups, 7 * s.real, 7 * s.base, 7 * s.drawn) for s in (train, val)]
    assert compare(*scaled).difference.value == pytest.approx(found.difference.value)
    assert found.unit == pytest.approx(np.sqrt(2), rel=0.05)  # two of variance 1


def test_distances_are_those_of_a_loop():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(3, 8)), rng.normal(size=(4, 8))
    expected = [[np.sqrt(((x - y) ** 2).mean()) for y in b] for x in a]
    np.testing.assert_allclose(distances(a, b), expected)


def test_pictures_of_one_group_are_not_unrelated():
    real = np.array([[0.0], [0.1], [5.0]])
    assert unrelated(real, ["a", "a", "b"]) == pytest.approx((5.0 + 4.9) / 2)
    with pytest.raises(ValueError, match="different groups are needed"):
        unrelated(real, ["a", "a", "a"])
    with pytest.raises(ValueError, match="have to differ"):
        unrelated(np.zeros((2, 1)), ["a", "b"])


def test_the_nearest_is_found_over_blocks():
    rng = np.random.default_rng(6)
    drawn, real = rng.normal(size=(5, 8)), rng.normal(size=(30, 8))
    keys = [f"t{i}" for i in range(30)]
    search = NearestSearch(drawn)
    for start in range(0, 30, 7):
        search.add(keys[start : start + 7], real[start : start + 7])
    found, expected = search.nearest(), distances(drawn, real)
    assert found.keys == [keys[i] for i in expected.argmin(1)]
    np.testing.assert_allclose(found.distance, expected.min(1))


def test_the_most_suspicious_are_near_where_the_base_was_not():
    real = np.arange(10.0)[:, None] * 10
    base = NearestSearch(real[:4] + np.array([[1], [0.011], [4.5], [0.05]]))
    drawn = NearestSearch(real[:4] + np.array([[0.1], [0.01], [4], [0.05]]))
    for search in (base, drawn):
        search.add([str(i) for i in range(10)], real)
    assert most_suspicious(base.nearest(), drawn.nearest(), 3) == [0, 2, 1]


@pytest.mark.parametrize(
    ("row", "copies", "kept", "looked_at"),
    [
        (4, set(), 4, [4]),
        (4, {4}, 3, [4, 3]),
        (4, {4, 3, 1}, 2, [4, 3, 2]),
        (4, {4, 3, 2, 1}, 0, [4, 3, 2, 1]),
        (20, {20, 15}, 10, [20, 15, 10]),
        (1, {1}, 0, [1]),
        (0, set(), 0, []),
    ],
)
def test_walking_back(row, copies, kept, looked_at):
    seen = []

    def vetoed(candidate: int) -> str | None:
        seen.append(candidate)
        return f"row {candidate} copies" if candidate in copies else None

    found, reasons = first_without(row, vetoed)
    assert found == kept
    assert seen == looked_at
    assert reasons == [f"row {r} copies" for r in looked_at if r in copies]


@pytest.mark.parametrize("row", range(60))
def test_few_earlier_checkpoints_are_looked_at(row):
    rows = earlier(row) if row else []
    assert len(rows) == min(MOST_LOOKS, max(row - 1, 0))
    assert sorted(set(rows), reverse=True) == rows
    assert all(0 < r < row for r in rows)


def test_the_sentence_names_what_is_kept():
    assert kept_instead(75).endswith("step 75.")
    assert "the base is kept" in kept_instead(0)
    assert kept_instead(75, [225, 150]).startswith("Copying, too: step 225, 150. So")


@pytest.mark.parametrize("pictures", [-1, 1, 31])
def test_fewer_pictures_than_are_judged_are_refused(pictures):
    with pytest.raises(ValueError, match=rf"copying\.pictures={pictures}.*0, or 32 or more"):
        CopyingConfig(pictures)
    assert CopyingConfig(0).pictures == 0


def test_the_default_gate_has_the_same_margin():
    path = Path(__file__).parents[3] / "conf" / "gate" / "default.yaml"
    rules: Any = OmegaConf.select(OmegaConf.load(path), "rules")
    assert rules["copies_nothing"]["threshold"] == MARGIN
