"""p values against tables and a simulated sign test, Holm's correction against a case by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluate.metrics.holm import holm, p_value


def of_t(t: float, count: int) -> np.ndarray:
    """``count`` values whose mean is ``t`` standard errors from zero."""
    values = np.arange(count, dtype=float)
    values = (values - values.mean()) / (values.std(ddof=1) / np.sqrt(count))
    return values + t


@pytest.mark.parametrize(
    ("t", "count", "p"),  # the columns 0.05, 0.01 and 0.001 (two-sided) of any table of Student's t
    [(12.706, 2, 0.05), (4.604, 5, 0.01), (2.0395, 32, 0.05), (3.6335, 32, 0.001), (1.984, 101, 0.05)],
)  # fmt: skip
def test_as_in_tables_of_students_t(t, count, p):
    names = [str(i) for i in range(count)]
    assert p_value(of_t(t, count), names) == pytest.approx(p, rel=2e-3)
    assert p_value(-of_t(t, count), names) == p_value(of_t(t, count), names)


def test_near_copies_count_once():
    values = of_t(2.0395, 32)
    names = [str(i) for i in range(32)]
    thrice = p_value(np.repeat(values, 3), [name for name in names for _ in range(3)])
    assert thrice == pytest.approx(p_value(values, names))
    assert p_value(np.repeat(values, 3), [str(i) for i in range(96)]) < 0.001


def test_agrees_with_the_exact_test_of_random_signs():
    """Under the null every sign is as likely; a t test of even-tailed values says about the same."""
    values = np.random.default_rng(3).normal(0.4, 1, 12)
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    exact = (np.abs((signs * values).mean(axis=1)) >= abs(values.mean()) - 1e-12).mean()
    assert p_value(values, [str(i) for i in range(12)]) == pytest.approx(exact, abs=0.02)


def test_without_any_spread_or_number():
    names = ["a", "b", "c"]
    assert p_value(np.zeros(3), names) == 1
    assert p_value(np.full(3, 0.5), names) == 0
    assert np.isnan(p_value(np.array([0.1, np.nan, 0.2]), names))
    with pytest.raises(ValueError, match="two groups or more, got 1"):
        p_value(np.ones(3), ["a", "a", "a"])


def test_holm_by_hand():
    # In order .005 * 5, .011 * 4, .02 * 3, .04 * 2, .13 * 1; the fourth and none later may be smaller.
    assert holm([0.02, 0.13, 0.005, 0.04, 0.011]) == pytest.approx([0.06, 0.13, 0.025, 0.08, 0.044])
    assert holm([0.04, 0.03, 0.02]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_the_step_down_procedure():
    """Called below 0.05 are exactly those that the procedure rejects one after the other."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        p = draw.uniform(0, 0.1, draw.integers(1, 8)) ** 1.5
        rejected = set()
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (len(p) - rank):
                break
            rejected.add(int(index))
        assert {i for i, adjusted in enumerate(holm(p.tolist())) if adjusted <= 0.05} == rejected
