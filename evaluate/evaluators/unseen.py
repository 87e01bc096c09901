"""The loss on the split that nothing was chosen by: does the checkpoint to keep do as well there?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.decide.config import SMALLEST_JUDGED
from evaluate.evaluators import Description, Evaluator
from evaluate.results import BASE_KEPT, Metric

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The checkpoint to keep against the base, on the split ``test``."""
    yield "test_change", _change(evaluation)


def _change(evaluation: Evaluation) -> Metric:
    if evaluation.too_few:
        return evaluation.too_few
    if evaluation.kept == 0:
        return Metric(reason=f"{BASE_KEPT}, there is no checkpoint to test")
    if evaluation.on_test(evaluation.kept) is None:
        return Metric(
            reason=f"the split 'test' has fewer than {SMALLEST_JUDGED} groups of pictures"
        )
    return evaluation.gain(evaluation.kept)


EVALUATOR = Evaluator(
    metrics={
        "test_change": Description(
            "Test loss, kept against base",
            "Held-out loss on the split 'test', which had no part in choosing the checkpoint. On the "
            "split that it was chosen by, the best of several looks a little better than it is.",
        )
    },
    measure=measure,
    position=20,
)
