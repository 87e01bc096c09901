"""Did the loss on training pictures change?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluate.evaluators import Description, Evaluator

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation
    from evaluate.results import Metric


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The checkpoint to keep against the base, on as many training as held-out pictures."""
    yield "train_probe_change", evaluation.change("train_probe", evaluation.kept)


EVALUATOR = Evaluator(
    metrics={
        "train_probe_change": Description(
            "Training-picture loss, kept against base",
            "The same loss on as many training pictures. A gap to held-out pictures is normal; held-out "
            "loss that rises while this one falls is overfitting.",
        )
    },
    measure=measure,
    position=30,
)
