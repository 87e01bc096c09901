"""How small a change could these pictures show?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluate.evaluators import Description, Evaluator
from evaluate.results import Metric
from finetune.intervals import detectable_change

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """From the scatter of the held-out scores of the checkpoint to keep; of the last if that is the base."""
    yield "detectable_change", evaluation.too_few or _detectable(evaluation)


def _detectable(evaluation: Evaluation) -> Metric:
    scores = evaluation.evidence.val
    difference = scores[evaluation.kept or evaluation.evidence.last] - scores[0]
    return Metric(value=detectable_change(difference), n=len(difference))


EVALUATOR = Evaluator(
    metrics={
        "detectable_change": Description(
            "Smallest detectable change",
            "The smallest true change between kept and base that this many pictures show in 80 % of "
            "cases.",
        )
    },
    measure=measure,
    position=35,
)
