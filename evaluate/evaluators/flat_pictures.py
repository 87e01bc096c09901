"""Does the model draw pictures at all, or single colours?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluate.evaluators import Description, Evaluator
from evaluate.measure.blank import is_flat
from evaluate.results import Metric

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """How many of all the pictures that were drawn are of one colour."""
    from PIL import Image

    paths = [path for files in evaluation.drawn.values() for path in files]
    flat = 0
    for path in paths:
        with Image.open(path) as picture:
            flat += is_flat(picture)
    yield "flat_pictures", Metric(value=float(flat), n=len(paths))


EVALUATOR = Evaluator(
    metrics={
        "flat_pictures": Description(
            "Blank pictures",
            "Generated pictures that have one colour throughout, a sign that the model broke down.",
            fraction=False,
        )
    },
    measure=measure,
    position=50,
)
