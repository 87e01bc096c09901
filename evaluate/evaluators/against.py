"""Is the checkpoint to keep worse than that of another run (``gate.against``)?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from curate.run.intervals import changes
from evaluate.evaluators import Description, Evaluator, FindingOn
from evaluate.results import NOT_ASKED, Finding, Metric

if TYPE_CHECKING:
    import numpy as np

    from evaluate.evaluation import Evaluation
    from evaluate.judged_runs.against import Against

OTHER = "the run compared with"
"""Stands for the other run's name in what is found, until ``headline.findings`` knows it."""


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The kept checkpoint of this run minus that of the other, in units of the other's base."""
    against = evaluation.against
    if against is None:
        yield "against_change", Metric(reason=f"{NOT_ASKED}, gate.against names no run")
    else:
        yield "against_change", _change(evaluation, against)


def _change(evaluation: Evaluation, against: Against) -> Metric:
    from finetune.heldout import relative
    from finetune.intervals import estimate

    on, losses, keys = _measured(evaluation, against)
    run = against.run
    shared = against.pictures[on].within(keys)
    if not shared.judged:
        return shared.too_few(on)
    theirs = [run.losses(on, step) for step in (0, run.kept)]
    base, other = (shared.rows(each, run.keys(on)) for each in theirs if each is not None)
    ours = relative(shared.rows(losses, keys), base, shared.groups)
    difference = ours - relative(other, base, shared.groups)
    return Metric.of(estimate(difference, shared.groups), on)


def _measured(evaluation: Evaluation, against: Against) -> tuple[str, np.ndarray, list[str]]:
    """The split, and the kept checkpoint's losses [N, bins, draws] and keys there.

    It is ``test``, which had no part in choosing either checkpoint, if both runs have enough of it.
    """
    test, run = evaluation.on_test(evaluation.kept), against.run
    theirs = run.kept and run.losses("test", run.kept) is not None
    if test and theirs and against.pictures["test"].within(test.keys).judged:
        return "test", test.losses[1], test.keys
    return "val", evaluation.table.val[evaluation.kept], evaluation.table.keys


def _findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """Better or worse than the other run, where one was named."""
    found = metrics.get("against_change", Metric())
    if found.value is None or found.low is None or found.high is None:
        return
    value, low, high = changes(found.value, found.low, found.high)
    state, words = "info", "does not show as different from"
    if found.high < 0:
        state, words = "good", "is lower than"
    elif found.low > 0:
        state, words = "bad", "is higher than"
    text = f"Its loss {words} that of {OTHER}: {value} points [{low}, {high}]."
    yield FindingOn("result", state, text, "metrics", "against_change")


EVALUATOR = Evaluator(
    metrics={
        "against_change": Description(
            "Against another run, held-out loss",
            "The kept checkpoint of this run minus that of the run compared with (gate.against), on the held-out "
            "pictures that both measured and none was trained on, in units of the loss of that run's base.",
        )
    },
    measure=measure,
    findings=_findings,
    position=25,
)
