"""KID: against loops and closed forms, and its intervals, p and floor against planted truths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from evaluate.measure.features import unit
from evaluate.metrics import kid
from finetune.intervals import of_groups

WIDTH = 8


def cubic(x: np.ndarray, y: np.ndarray) -> float:
    return (float(x @ y) / len(x) + 1) ** 3


def pictures(groups: int, rng: np.random.Generator, shift: float = 0.0, spread: float = 1.0):
    """Groups of 1 to 4 siblings; a drawn picture is like the real one of its caption, moved by ``shift``."""
    names = np.repeat(np.arange(groups), rng.integers(1, 5, groups))
    centre = rng.normal(size=(groups, WIDTH))[names]
    real = centre + 0.3 * rng.normal(size=centre.shape)
    drawn = spread * centre + 0.3 * rng.normal(size=centre.shape)
    drawn[:, 0] += shift
    return drawn, real, [str(name) for name in names]


def by_loops(x: np.ndarray, y: np.ndarray, groups: list[str]) -> float:
    """Draw two different groups, from each a picture: the mean over all ways to do so."""
    rows = {group: [i for i, name in enumerate(groups) if name == group] for group in groups}
    terms = [
        np.mean([cubic(x[i], x[j]) for i in rows[a] for j in rows[b]])
        + np.mean([cubic(y[i], y[j]) for i in rows[a] for j in rows[b]])
        - 2 * np.mean([cubic(x[i], y[j]) for i in rows[a] for j in rows[b]])
        for a, b in itertools.permutations(rows, 2)
    ]
    return float(np.mean(terms))


def test_the_distance_is_that_of_a_loop_over_groups():
    x, y, groups = pictures(7, np.random.default_rng(0), shift=0.5)
    assert kid.distance(kid.terms(x, y, groups)) == pytest.approx(by_loops(x, y, groups))
    order = np.random.default_rng(1).permutation(len(x))
    moved = kid.terms(x[order], y[order], [groups[i] for i in order])
    assert kid.distance(moved) == pytest.approx(by_loops(x, y, groups))


def test_a_sibling_more_changes_nothing():
    """A copy of a picture in its own group neither counts twice nor is compared with itself."""
    x, y, groups = pictures(6, np.random.default_rng(0), shift=0.5)
    single = [groups.index(group) for group in dict.fromkeys(groups)]
    x, y, groups = x[single], y[single], [groups[i] for i in single]
    twice = kid.terms(np.vstack([x, x[:1]]), np.vstack([y, y[:1]]), [*groups, groups[0]])
    np.testing.assert_allclose(twice, kid.terms(x, y, groups))


def test_equal_distributions_are_at_distance_zero_on_average():
    rng = np.random.default_rng(0)
    found = [kid.distance(kid.terms(*pictures(12, rng))) for _ in range(600)]
    mean, error = np.mean(found), np.std(found) / np.sqrt(len(found))
    assert abs(mean) < 3 * error
    assert min(found) < 0 < max(found)


def test_gaussians_are_at_the_distance_of_the_closed_form():
    """x ~ N(m, I), y ~ N(0, I) in d dimensions: E(x·x')ᵏ for k = 1, 2, 3 gives the squared MMD.

    With s = |m|²: E x·x' = s, E (x·x')² = s² + 2s + d, E (x·x')³ = s³ + 6s² + 3(d + 2)s; for x and y 0, s + d
    and 0; for y and y' 0, d and 0.
    """
    m, d = 0.7, WIDTH
    s = m * m
    truth = 3 * s / d + 3 * (s * s + 2 * s + d + d - 2 * (s + d)) / d**2
    truth += (s**3 + 6 * s * s + 3 * (d + 2) * s) / d**3
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        x, y = rng.normal(size=(2, 100, d))
        x[:, 0] += m
        found.append(kid.distance(kid.terms(x, y, [str(i) for i in range(100)])))
    assert np.mean(found) == pytest.approx(truth, abs=3 * np.std(found) / 10)
    assert np.std(found) / 10 < 0.06 * truth


def test_pseudo_values_leave_each_group_out_once():
    x, y, groups = pictures(9, np.random.default_rng(0), shift=1.0)
    found = kid.terms(x, y, groups)
    values = kid.pseudo_values(found)
    assert values.mean() == pytest.approx(kid.distance(found))
    for row, group in enumerate(dict.fromkeys(groups)):
        others = [i for i, name in enumerate(groups) if name != group]
        left = kid.distance(kid.terms(x[others], y[others], [groups[i] for i in others]))
        assert values[row] == pytest.approx(9 * kid.distance(found) - 8 * left)


def change(groups: int, rng: np.random.Generator, shift: float, scaled: bool) -> np.ndarray:
    """Terms of kept against base; the kept model repeats itself more and is nearer by a third."""
    base, real, names = pictures(groups, rng, shift)
    kept = 0.8 * base + 0.3 * rng.normal(size=base.shape)
    kept[:, 0] -= 0.2 * shift
    if scaled:
        base, real, kept = (WIDTH**0.5 * unit(x) for x in (base, real, kept))
    return kid.terms(kept, real, names) - kid.terms(base, real, names)


@pytest.mark.parametrize(
    ("shift", "scaled", "least"), [(1.5, True, 0.92), (0.0, True, 0.95), (1.5, False, 0.88)]
)
def test_the_interval_of_a_change_covers_the_truth(shift: float, scaled: bool, least: float):
    """Near 0 it is wider than it needs to be; features that are not of one length have longer tails."""
    rng, covered, trials = np.random.default_rng(0), 0, 200
    truth = np.mean([kid.distance(change(120, rng, shift, scaled)) for _ in range(60)])
    for _ in range(trials):
        terms = change(kid.LEAST_GROUPS, rng, shift, scaled)
        found = of_groups(kid.pseudo_values(terms), 0)
        covered += found.low <= truth <= found.high
    assert covered / trials >= least


def test_p_is_uniform_where_drawn_and_real_are_exchangeable():
    rng = np.random.default_rng(0)
    found = [kid.permutation_p(kid.terms(*pictures(16, rng)), seed) for seed in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_p_swaps_whole_groups_and_is_least_where_no_swap_reaches_the_distance():
    x, y, groups = pictures(5, np.random.default_rng(3), shift=0.6)
    measured, reached, signs = kid.terms(x, y, groups), 0, list(itertools.product((0, 1), repeat=5))
    names = list(dict.fromkeys(groups))
    for swap in signs:
        rows = np.array([bool(swap[names.index(group)]) for group in groups])[:, None]
        swapped = kid.terms(np.where(rows, y, x), np.where(rows, x, y), groups)
        reached += kid.distance(swapped) >= kid.distance(measured) - 1e-12
    assert kid.permutation_p(measured) == pytest.approx(reached / len(signs), abs=0.04)
    far = kid.terms(*pictures(40, np.random.default_rng(0), shift=3.0))
    assert kid.permutation_p(far) == 0.001
    assert kid.permutation_p(far) == kid.permutation_p(far)


def test_the_floor_is_what_two_sets_of_real_pictures_stay_below():
    rng, below, floors = np.random.default_rng(0), [], []
    for _ in range(150):
        one, other = (rng.normal(size=(30, WIDTH)) for _ in range(2))
        each = [str(i) for i in range(30)]
        below.append(kid.distance(kid.terms(one, other, each)))
        floors.append(kid.floor(one, each, seed=len(floors)))
    assert np.mean(floors) == pytest.approx(np.percentile(below, 95), rel=0.2)
    assert np.mean(np.array(below) <= floors) == pytest.approx(0.95, abs=0.04)
