"""The schema of ``report.json``: what every key means, how it is written, read and checked.

Numbers keep six significant digits. A metric that was not measured or is not finite is null and has a
reason; the file never holds NaN. Changes are fractions: -0.06 is 6 % less.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from curate.run.files import read_json, write_certified
from curate.run.finished import to_mend
from curate.run.next_command import run_arguments
from curate.run.reconsider import Doubt
from curate.run.schema import UserError
from curate.run.tracking import Point
from curate.run.typed_json import typed
from finetune.intervals import Estimate

SCHEMA_VERSION = 4
NOT_MEASURED = "not measured"
NOT_ASKED = "not asked for"  # begins the reason of a metric that nobody misses
BASE_KEPT = "the base is kept"  # begins that of a comparison with the checkpoint to keep


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with its 95 % interval; null, with a ``reason``, if it was not measured.

    Attributes:
        n: pictures it is measured on. groups: duplicate groups of them, each of which counts once.
        on: which pictures: ``val`` and ``test`` are the held-out splits, ``train_probe`` training pictures;
            others are named in words.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    groups: int | None = None
    on: str = ""
    reason: str = ""

    @classmethod
    def of(cls, estimate: Estimate, on: str = "") -> Metric:
        """From an estimate on some pictures; null, with the reason, if that is not finite."""
        numbers = (estimate.value, estimate.low, estimate.high)
        known: dict[str, Any] = {"n": estimate.n, "groups": estimate.groups, "on": on}
        if all(map(math.isfinite, numbers)):
            return cls(*numbers, **known)
        single = math.isfinite(estimate.value) and estimate.groups < 2
        reason = "a single group of pictures has no interval" if single else "not a finite number"
        return cls(**known, reason=reason)


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """A checkpoint's change against the base: fractions, negative is better.

    Attributes:
        step: optimizer updates; 0 is the base itself.
        val: on held-out pictures. train_probe: on as many of the training pictures.
        val_bins, train_probe_bins: the same by noise level, the least noise first; null for a level
            that scores leave out.
    """

    step: int
    samples_seen: int
    val: Metric
    train_probe: Metric
    val_bins: tuple[float | None, ...]
    train_probe_bins: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, the sentence, what to do next; and the steps that matter (0 is the base).

    Attributes:
        best: with the lowest held-out loss. kept: the earliest within one standard error of it.
        exported: whose weights the run's export holds. last: of the run.
    """

    word: str
    sentence: str
    advice: str
    best: int
    kept: int
    exported: int
    last: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the headline.

    Attributes:
        part: ``result`` (what was gained), ``trend`` (whether it still falls) or ``cost``.
        state: good, warn, bad, or info: neither, or not measured.
        text: the sentence, with its numbers.
        section: the anchor of the report's section that shows it.
    """

    part: str
    state: str
    text: str
    section: str


@dataclass(frozen=True, slots=True)
class Look:
    """One evaluation of the held-out loss while training, on training's own, smaller grid.

    Attributes:
        val, train_probe: changes against the base, as those of :class:`CheckpointResult`.
    """

    step: int
    samples_seen: int
    val: Metric
    train_probe: Metric


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one rule of the gate.

    Attributes:
        name: the rule's name in the configuration.
        rule: what the metric has to satisfy, in words.
        measured: the metric as it is printed.
        status: passed, failed, warned, undecided, or skipped: optional and not measured.
        why: the reason, where the numbers alone do not show it.
    """

    name: str
    metric: str
    rule: str
    measured: str
    status: str
    why: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Pictures of one held-out caption by label, paths relative to the report.

    Labels are those of :func:`label_of`.
    """

    key: str
    caption: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class CopyingLook:
    """What was found about copying at one checkpoint.

    Attributes:
        difference: how much nearer training captions came to their own pictures than held-out ones, against
            the base; positive is copying, 1 is the distance between unrelated pictures.
        own_train, own_val: share of drawn pictures whose nearest real one is their caption's own, and the
            base's shares.
        blank: captions left out since a picture was blank. copies: whether it must not be kept.
    """

    step: int
    difference: Metric
    own_train_base: float
    own_train: float
    own_val_base: float
    own_val: float
    blank: int
    copies: bool


@dataclass(frozen=True, slots=True)
class CopiedPair:
    """A picture drawn for a training caption, and the training picture nearest to it.

    Attributes:
        key, caption: that it was drawn for. drawn: its file, relative to the report.
        nearest_key, nearest_caption, nearest: the same of the training picture.
        distance: between the two, where 1 is the distance between unrelated pictures.
        base_distance: between what the base drew and the training picture nearest to that.
    """

    key: str
    caption: str
    drawn: str
    nearest_key: str
    nearest_caption: str
    nearest: str
    distance: float
    base_distance: float


@dataclass(frozen=True, slots=True)
class CopyingResult:
    """Whether checkpoints draw their training pictures again.

    Attributes:
        looks: at each checkpoint that was looked at, in order of training.
        step: whose pictures follow: the last of those that copy or, where none does, of all.
        train, val: how much nearer each picture came to its caption's own picture.
        searched: training pictures among which the nearest was looked for.
        pairs: the most suspicious first.
    """

    looks: tuple[CopyingLook, ...]
    step: int
    train: tuple[float, ...]
    val: tuple[float, ...]
    searched: int
    pairs: tuple[CopiedPair, ...]


@dataclass(frozen=True, slots=True)
class SliceResult:
    """A part of the held-out pictures; fractions, negative is better.

    Attributes:
        dimension: what pictures are divided by. label: which part; "" where they cannot be divided by it.
        change: of the slice's own loss, kept against base; null, with the reason, where it is not judged.
        difference: of that from the change of all other pictures, above zero it gained less; its interval
            holds for all slices at once.
    """

    dimension: str
    label: str
    change: Metric
    difference: Metric


@dataclass(frozen=True, slots=True)
class DoubtResult(Doubt):
    """A row of ``reconsider.csv``, and its picture.

    Attributes:
        file: of the picture, relative to the report; "" for all but the first ones.
    """

    file: str


@dataclass(frozen=True, slots=True)
class RetentionPoint:
    """A checkpoint's change of the loss on the base's own pictures, against the base; step 0 is the base."""

    step: int
    samples_seen: int
    loss: Metric


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """What became of that which the base could do.

    Attributes:
        points: the base and every checkpoint, in order of training.
        pictures: some neutral prompts, drawn by the base and the kept checkpoint from the same noise; their
            keys are those of the noise.
    """

    points: tuple[RetentionPoint, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that one evaluation found; the HTML report shows no other numbers.

    Attributes:
        findings: result, trend and costs, in this order.
        gate: failed, undecided, warned or passed, see ``evaluate.gate.decide``.
        checkpoints: the base and every checkpoint that is stored, on the evaluation's grid.
        looks: every evaluation of the training, on its own grid.
        provenance: configurations, versions, the git revision, and digests of the data and of what was
            measured.
    """

    schema_version: int
    run: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    gate: str
    checks: tuple[Check, ...]
    metrics: dict[str, Metric]
    checkpoints: tuple[CheckpointResult, ...]
    looks: tuple[Look, ...]
    pictures: tuple[Picture, ...]
    copying: CopyingResult | None
    slices: tuple[SliceResult, ...]
    reconsider: tuple[DoubtResult, ...]
    provenance: dict[str, Any]
    retention: RetentionResult | None = None


def label_of(step: int) -> str:
    """How pictures of a step are labelled, in folders and in ``report.json``.

    >>> label_of(0), label_of(450)
    ('base', 'step-00000450')
    """
    return f"step-{step:08d}" if step else "base"


def points(results: Results) -> list[Point]:
    """What trackers get: the changes of every checkpoint's losses at its step, the metrics at the kept one's."""
    found = [
        (
            row.step,
            {"checkpoint/val": row.val.value, "checkpoint/train_probe": row.train_probe.value},
        )
        for row in results.checkpoints
    ]
    if results.retention:
        found += [
            (row.step, {"checkpoint/retention": row.loss.value}) for row in results.retention.points
        ]
    metrics = {name: metric.value for name, metric in results.metrics.items()}
    return sorted([*found, (results.verdict.kept, metrics)], key=itemgetter(0))


def save(results: Results, path: Path) -> None:
    """Write ``report.json``, atomically, with sorted keys."""
    write_certified(path, rounded(asdict(results)))


def load(path: Path) -> Results:
    """Read and check ``report.json``.

    Raises:
        FileNotFoundError: there is none; says what to type.
        UserError: it is of another schema version, or damaged.
        ValueError: a key is missing, unknown or of the wrong type; names it.
    """
    run_dir = path.parent.parent
    again = to_mend(run_dir, f"type: python -m evaluate {run_arguments(run_dir)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {again}")
    if (content := read_json(path)) is None:
        raise UserError(f"{path} is damaged; {again}")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema_version {content.get('schema_version')}, not {SCHEMA_VERSION}; {again}"
        )
    return typed(Results, content, "report")


def rounded(value: Any) -> Any:
    """A nested value with its floats at six significant digits.

    >>> rounded({"loss": [0.12345678, 2]})
    {'loss': [0.123457, 2]}
    """
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
