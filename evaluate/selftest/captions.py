"""Planted caption gains: right, wrong and half wrong captions, and a base that ignores captions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from evaluate.selftest.case import Case, Outcome, share
from finetune.caption_check import CaptionCheck, Finding
from finetune.caption_gain import fit
from finetune.intervals import estimate

PICTURES, GROUPS = 128, 120  # as the product takes of the demo
EFFECT = 0.3  # of the base's loss, by which captions move the built-in base's predictions
GAIN_SD = 0.17  # of single pictures' gains, as in the demo
RUNS = 300
FALSE_ALARMS = 0.02  # the most right captions refused
SEEN = 0.95  # the least wrong captions refused


_PLANTED: tuple[tuple[str, float, float, tuple[Finding, ...]], ...] = (
    ("right captions that the base knows", 1.0, EFFECT, ("seen",)),
    ("captions that are all wrong", 0.0, EFFECT, ("unseen",)),
    ("captions of which half are wrong", 0.5, EFFECT, ("seen", "weak")),
    ("a base that ignores captions", 1.0, 1e-5, ("unseen",)),
)
_MEANING = {
    "seen": "accepted",
    "weak": "warned of",
    "unclear": "called unclear",
    "unseen": "refused",
}


def cases() -> Iterator[Case]:
    """What the check before training makes of captions."""
    for planted, right, effect, expected in _PLANTED:
        yield Case(planted, _words(expected), partial(_check, right, expected, effect))
    yield Case(
        f"{RUNS} data sets with right captions that the base knows half",
        f"at most {share(FALSE_ALARMS)} refused",
        partial(_rate, 0.5, False),
    )
    yield Case(
        f"{RUNS} data sets with wrong captions",
        f"at least {share(SEEN)} refused",
        partial(_rate, 0.0, True),
    )


def _words(findings: tuple[Finding, ...]) -> str:
    return " or ".join(_MEANING[each] for each in findings)


def check(rng: np.random.Generator, right: float, effect: float = EFFECT) -> CaptionCheck:
    """What is measured of ``PICTURES`` pictures.

    Args:
        rng: the only source of chance.
        right: mean gain in units of the effect: 1 for right captions that the base knows, 0 for wrong ones.
        effect: by which captions move the base's predictions, in units of its loss.
    """
    groups = [str(number % GROUPS) for number in range(PICTURES)]
    spread = GAIN_SD * effect / EFFECT
    effects = effect * rng.gamma(8, 1 / 8, PICTURES)
    gain = right * effects + rng.normal(0, spread, PICTURES)
    return CaptionCheck(
        gain=estimate(gain, groups),
        fit=fit(gain, effects, groups),
        effect=estimate(effects, groups).value,
        left_out=0,
        suspects=(),
    )


def _check(right: float, expected: tuple[Finding, ...], effect: float) -> Outcome:
    found = check(np.random.default_rng(0), right, effect)
    low, high = found.fit.low, found.fit.high
    text = f"{_MEANING[found.finding]}; fit {found.fit.value:.2f} [{low:.2f}, {high:.2f}]"
    return Outcome(text, found.finding in expected)


def _rate(right: float, refused: bool) -> Outcome:
    rng = np.random.default_rng(1)
    found = [check(rng, right).finding == "unseen" for _ in range(RUNS)]
    rate = float(np.mean(found))
    return Outcome(f"{share(rate)} refused", rate >= SEEN if refused else rate <= FALSE_ALARMS)
