"""What got better: composition, structure or detail?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluate.evaluators import Description, Evaluator
from evaluate.results import Metric

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

# Thirds of the diffusion time, the most noise first: at much noise a model decides where things are, at
# little noise how surfaces look.
THIRDS = ("composition", "structure", "detail")


def third(name: str, bins: int) -> slice:
    """The noise levels of a third, of ``bins`` levels with the least noise first.

    >>> [third(name, 10) for name in THIRDS]
    [slice(7, 10, None), slice(3, 7, None), slice(0, 3, None)]
    """
    edges = [round(bins * part / 3) for part in range(4)]
    part = len(THIRDS) - 1 - THIRDS.index(name)
    return slice(edges[part], edges[part + 1])


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The checkpoint to keep against the base, by third."""
    for name in THIRDS:
        yield f"gain_{name}", _gain(evaluation, name)


def _gain(evaluation: Evaluation, name: str) -> Metric:
    if evaluation.kept == 0:
        return Metric(reason="the base is kept, there is nothing to compare it with")
    return evaluation.gain(evaluation.kept, third(name, evaluation.config.grid.bins))


EVALUATOR = Evaluator(
    metrics={
        f"gain_{name}": Description(
            f"Held-out loss at {noise} noise ({name}), kept against base",
            f"The held-out loss of the third of the noise levels with {meaning}.",
        )
        for name, noise, meaning in (
            ("composition", "much", "the most noise, where a model decides where things are"),
            ("structure", "middle", "a middle amount of noise, where shapes are decided"),
            ("detail", "little", "the least noise, where surfaces and edges are decided"),
        )
    },
    measure=measure,
    position=15,
)
