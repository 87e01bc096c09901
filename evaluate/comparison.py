"""The numbers of a comparison: each run against the first, picture by picture, corrected for their count.

All losses are in units of the first run's base model, each noise level counting the same
(``finetune.heldout.relative``), so that a difference of -0.03 is 3 % of that base's loss. Differences are
taken picture by picture, averaged within duplicate groups, and tested with Student's t over the groups; Holm's
correction is over all metrics of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.decide.config import HELD_OUT, SMALLEST_JUDGED
from curate.run.files import sha256_once, write_certified
from curate.run.intervals import changes
from curate.run.provenance import provenance
from evaluate import evaluators
from evaluate.evaluators import Description
from evaluate.evaluators.noise_thirds import THIRDS, third
from evaluate.judged_runs import comparable
from evaluate.judged_runs.comparable import Shared
from evaluate.judged_runs.judged import LOSSES, Judged
from evaluate.metrics.holm import holm, p_value
from evaluate.results import Metric, rounded
from finetune.intervals import Array, estimate, group_means
from finetune.rules import NEGLIGIBLE

SCHEMA_VERSION = 1
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "not measured"
SIGNIFICANT = 0.05
MOVED = 8  # pictures that became most better, and as many that became most worse

LOSS = "heldout_loss"
LOSSES_BY_NAME = {
    LOSS: Description(
        "Held-out loss",
        "Denoising loss of the kept checkpoint on pictures that were not trained on, each noise level counting the "
        "same, in units of the loss of the first run's base model.",
    ),
    **{
        f"{LOSS}_{name}": Description(f"Held-out loss, {name}", f"The same {where}.")
        for name, where in (
            ("composition", "at much noise, where a model decides where things are"),
            ("structure", "at a middle amount of noise, where it decides on shapes"),
            ("detail", "at little noise, where it decides how surfaces look"),
        )
    },
}
STORED = {
    "clip_similarity": Description(
        "CLIP similarity",
        "Cosine of the picture that the kept checkpoint drew for a held-out caption with that caption, by the CLIP of "
        "the evaluation.",
        better="higher",
        fraction=False,
    )
}
"""What evaluators store of each picture under a name that is none of a metric's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one pair of runs.

    Attributes:
        metric: its name, see :func:`description`.
        reference, other: means over groups; of a loss, its change against the first run's base.
        difference: of the pictures, other minus reference; null with the reason where it was not measured.
        p: two-sided. corrected: the same by Holm over the whole comparison.
        word: better, worse, no difference shown, or not measured.
        why: where the numbers alone do not show it.
    """

    metric: str
    reference: float | None
    other: float | None
    difference: Metric
    p: float | None = None
    corrected: float | None = None
    word: str = UNKNOWN
    why: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """A held-out picture whose loss differs much between two runs, in units of the mean loss of the base."""

    key: str
    caption: str
    difference: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A run against the first one."""

    other: str
    word: str
    sentence: str
    lines: tuple[Line, ...]
    moved: tuple[Moved, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs: its folder, kept step (0 is the base), base model and losses, both as digests."""

    name: str
    folder: str
    kept: int
    base: str
    losses_sha256: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a comparison found: the schema of ``compare.json``.

    Attributes:
        runs: the first is the reference.
        on: the split whose losses are compared.
        pictures, groups: that all runs have in common there.
        left_out: pictures of the first run's split that are not compared, by the reason.
        comparisons: how many the correction is for.
        configuration: of the trainings, by dotted key, a value for each run; only keys that differ.
        settings: by which all were judged.
    """

    schema_version: int
    runs: tuple[Side, ...]
    on: str
    pictures: int
    groups: int
    left_out: dict[str, int]
    comparisons: int
    pairs: tuple[Pair, ...]
    configuration: dict[str, tuple[Any, ...]]
    settings: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def decidable(self) -> bool:
        """Whether there are groups enough for a judgement."""
        return self.groups >= SMALLEST_JUDGED


def description(name: str) -> Description:
    """How a metric of a comparison is called and printed."""
    known = {**evaluators.descriptions(), **STORED, **LOSSES_BY_NAME}
    return known.get(name) or Description(name, "", better="", fraction=False)


def save(found: Comparison, path: Path) -> None:
    """Write ``compare.json``, atomically, with sorted keys."""
    write_certified(path, rounded(asdict(found)))


def refuse(runs: Sequence[Judged]) -> dict[str, Shared]:
    """The held-out pictures that the runs have in common, by split; refuses runs that cannot be compared.

    Raises:
        UserError: they were judged differently, are of other latents, have no held-out picture in common, or one
            was trained on such a picture; says what to type.
    """
    first = runs[0]
    for other in runs[1:]:
        comparable.refuse_other_settings(
            first.run_dir,
            comparable.compared_settings(first),
            other.run_dir,
            comparable.compared_settings(other),
        )
        comparable.refuse_other_units(first.run_dir, first.origin, other.run_dir, other.origin)
    found = {split: comparable.shared(runs, split) for split in HELD_OUT}
    comparable.refuse_nothing_shared(runs, found["val"])
    comparable.refuse_trained_on(runs, found.values())
    return found


def compare(runs: Sequence[Judged], pictures: dict[str, Shared]) -> Comparison:
    """All numbers.

    Args:
        runs: judged; the first is the reference.
        pictures: of :func:`refuse`.
    """
    on = _split(runs, pictures)
    shared = pictures[on]
    measured = [list(_lines(runs[0], other, pictures, on)) for other in runs[1:]]
    lines = _corrected(measured)
    return Comparison(
        schema_version=SCHEMA_VERSION,
        runs=tuple(_side(run) for run in runs),
        on=on,
        pictures=len(shared.keys),
        groups=len(set(shared.groups)),
        left_out=shared.left_out,
        comparisons=sum(line.p is not None for pair in lines for line in pair),
        pairs=tuple(
            _pair(runs[0], other, found, pictures["val"])
            for other, found in zip(runs[1:], lines, strict=True)
        ),
        configuration=_differing([run.results.provenance["finetune"] for run in runs]),
        settings=comparable.compared_settings(runs[0]),
        provenance=provenance(),
    )


def _side(run: Judged) -> Side:
    digest = sha256_once(run.run_dir / "evaluate" / LOSSES)
    return Side(run.name, str(run.run_dir), run.kept, run.origin["base"], digest)


def _split(runs: Sequence[Judged], pictures: dict[str, Shared]) -> str:
    """``test``, which the kept checkpoints were not chosen by, if all measured enough of it; else ``val``.

    An evaluation that keeps the base measures nothing on ``test`` by it.
    """
    measured = all(run.kept and run.losses("test", run.kept) is not None for run in runs)
    return "test" if measured and pictures["test"].judged else "val"


# Lines


def _lines(
    first: Judged, other: Judged, pictures: dict[str, Shared], on: str
) -> Iterator[tuple[Line, Array, Sequence[str]]]:
    """Each metric, with its differences and the groups of their pictures; both empty where not measured."""
    shared = pictures[on]
    levels = {LOSS: slice(None)}
    levels |= {f"{LOSS}_{name}": third(name, first.setting("grid")["bins"]) for name in THIRDS}
    for name, chosen in levels.items():
        if not shared.judged:
            yield Line(name, None, None, shared.too_few(on)), np.array([]), []
            continue
        try:
            sides = [scores(run, first, on, shared, chosen) for run in (first, other)]
        except ValueError as error:
            yield Line(name, None, None, Metric(on=on, reason=str(error))), np.array([]), []
        else:
            yield _line(name, [side - 1 for side in sides], shared.groups, on)
    for name in sorted({*first.scores, *other.scores}):
        yield _stored(name, first, other, pictures)


def scores(
    run: Judged, reference: Judged, split: str, shared: Shared, levels: slice = slice(None)
) -> Array:
    """[N] losses of a run's kept checkpoint on the shared pictures, in units of the reference's base.

    Raises:
        ValueError: the reference's base has almost no loss in any of ``levels``.
    """
    from finetune.heldout import relative  # here: it needs torch, which mistakes need not wait for

    base, kept = reference.losses(split, 0), run.losses(split, run.kept)
    assert base is not None, f"{reference.run_dir} has no losses of its base on {split}"
    assert kept is not None, f"{run.run_dir} has no losses of step {run.kept} on {split}"
    return relative(
        shared.rows(kept, run.keys(split)),
        shared.rows(base, reference.keys(split)),
        shared.groups,
        levels,
    )


def _stored(
    name: str, first: Judged, other: Judged, pictures: dict[str, Shared]
) -> tuple[Line, Array, Sequence[str]]:
    """A metric of which evaluators stored a value for each picture, see ``LossStore.put_scores``."""

    def missing(reason: str) -> tuple[Line, Array, Sequence[str]]:
        return Line(name, None, None, Metric(reason=reason)), np.array([]), []

    lacking = [run.name for run in (first, other) if name not in run.scores]
    if lacking:
        return missing(f"not stored by the evaluation of {' and '.join(lacking)}")
    one, two = first.scores[name], other.scores[name]
    if one.instrument != two.instrument:
        return missing(f"measured differently: {one.instrument}; in {other.name} {two.instrument}")
    if one.on != two.on:
        return missing(f"measured on {one.on}, and in {other.name} on {two.on}")
    both = [key for key in one.values if key in two.values]
    shared = pictures[one.on].within(both) if one.on in pictures else Shared(both, both)
    if not shared.judged:
        return Line(name, None, None, shared.too_few(one.on)), np.array([]), []
    sides = [np.array([side.values[key] for key in shared.keys]) for side in (one, two)]
    return _line(name, sides, shared.groups, one.on)


def _line(
    name: str, sides: Sequence[Array], groups: Sequence[str], on: str
) -> tuple[Line, Array, Sequence[str]]:
    """A metric from its values [N] in the first and in the other run."""
    differences = sides[1] - sides[0]
    difference = Metric.of(estimate(differences, groups), on)
    means = [float(group_means(side, groups).mean()) for side in sides]
    shown = [value if math.isfinite(value) else None for value in means]
    return Line(name, shown[0], shown[1], difference), differences, groups


def _corrected(
    measured: Sequence[Sequence[tuple[Line, Array, Sequence[str]]]],
) -> list[list[Line]]:
    """The lines of all pairs with p values, their correction over all of them, and words."""
    p_values = [
        p_value(differences, groups) if line.difference.value is not None else None
        for pair in measured
        for line, differences, groups in pair
    ]
    corrected = iter(holm([p for p in p_values if p is not None]))
    following = iter(p_values)
    return [
        [
            line if (p := next(following)) is None else _judged(line, p, next(corrected))
            for line, _, _ in pair
        ]
        for pair in measured
    ]


def _judged(line: Line, p: float, corrected: float) -> Line:
    text, value = description(line.metric), line.difference.value
    assert value is not None
    word, why = SAME, ""
    if corrected < SIGNIFICANT and not text.better:
        why = "neither direction is better"
    elif corrected < SIGNIFICANT and line.metric in LOSSES_BY_NAME and abs(value) <= NEGLIGIBLE:
        why = f"a difference of {NEGLIGIBLE:.1%} or less does not count"
    elif corrected < SIGNIFICANT:
        word = BETTER if (value < 0) == (text.better == "lower") else WORSE
    elif p < SIGNIFICANT:
        why = "not after the correction for several comparisons"
    return replace(line, p=p, corrected=corrected, word=word, why=why)


# Pairs


def _pair(first: Judged, other: Judged, lines: Sequence[Line], val: Shared) -> Pair:
    main = lines[0]
    return Pair(
        other=other.name,
        word=main.word,
        sentence=_sentence(first.name, other.name, lines),
        lines=tuple(lines),
        moved=tuple(_moved(first, other, val)),
    )


def _sentence(first: str, other: str, lines: Sequence[Line]) -> str:
    main, difference = lines[0], lines[0].difference
    if difference.value is None:
        return f"Whether {other} is better than {first} was not measured: {difference.reason}."
    assert difference.low is not None
    assert difference.high is not None
    value, low, high = changes(difference.value, difference.low, difference.high)
    size = f"{value} points [{low}, {high}] of the base's loss"
    found = {
        BETTER: f"The held-out loss of {other} is lower than that of {first}: {size}.",
        WORSE: f"The held-out loss of {other} is higher than that of {first}: {size}.",
        SAME: f"No difference in held-out loss between {other} and {first} is shown: {size}.",
    }[main.word]
    for word in (BETTER, WORSE):
        titles = [description(line.metric).title for line in lines[1:] if line.word == word]
        names = [_short(title) for title in titles]
        found += f" {word.capitalize()} in: {'; '.join(names)}." if names else ""
    return found


def _short(title: str) -> str:
    """A metric's title in a sentence that has spoken of the loss.

    >>> _short("Held-out loss, detail"), _short("Prompt following, kept")
    ('detail', 'prompt following, kept')
    """
    short = title.removeprefix(f"{LOSSES_BY_NAME[LOSS].title}, ")
    return short if short[:2].isupper() else short[:1].lower() + short[1:]


def _moved(first: Judged, other: Judged, val: Shared) -> Iterator[Moved]:
    """The ``MOVED`` pictures of ``val`` that improved most, the most first, and as many that worsened most."""
    differences = scores(other, first, "val", val) - scores(first, first, "val", val)
    if not np.isfinite(differences).all():
        return
    order = sorted(range(len(val.keys)), key=lambda i: (differences[i], val.keys[i]))
    improved = [i for i in order if differences[i] < 0][:MOVED]
    worsened = [i for i in reversed(order) if differences[i] > 0][:MOVED]
    for i in [*improved, *worsened]:
        yield Moved(val.keys[i], val.captions[i], float(differences[i]))


# Configuration


def _differing(configurations: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Values by dotted key where the trainings were configured differently, the run's own place aside."""
    flat = [dict(_flat(configuration)) for configuration in configurations]
    found = {}
    for key in sorted({key for each in flat for key in each}):
        values = tuple(each.get(key) for each in flat)
        if any(value != values[0] for value in values) and not key.startswith("run."):
            found[key] = values
    return found


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value
