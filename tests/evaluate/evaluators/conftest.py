"""An evaluation with planted scores: what evaluators ask of it, without a run, a model or pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evaluate.evaluation import Evaluation
from evaluate.measure.grid import SplitLosses
from evaluate.measure_config import CopyingConfig
from finetune.rules import Evidence, kept
from tests.evaluate.conftest import scores

# Row by row, all different, so that no metric can be taken from another row or split unnoticed. The base
# is row 0, the kept checkpoint row 2, the exported one row 1, the last one row 3.
VAL = [1, 0.95, 0.8, 0.9]
TRAIN_PROBE = [1, 0.9, 0.7, 0.5]


def _names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


class Planted(Evaluation):
    """Its evidence is given; the methods on it are the real ones."""

    def __init__(self, evidence: Evidence, exported: int, test: Any = None) -> None:
        self.evidence, self.exported, self.planted_test = evidence, exported, test
        self.asked: list[Any] = []
        self._on_test: dict[int, Any] = {}
        self.grid: Any = self
        self.table: Any = SimpleNamespace(
            steps=tuple(range(len(evidence.val))),
            val=evidence.val[:, :, None, None],
            groups=_names(evidence.val.shape[1]),
        )
        self.config: Any = SimpleNamespace(copying=CopyingConfig(0))

    def checkpoint(self, row: int) -> Any:
        return SimpleNamespace(row=row) if row else None

    def test(self, stored: Any) -> SplitLosses | None:
        """Of the grid: one noise level, so that losses are scores."""
        self.asked.append(stored.row)
        if self.planted_test is None:
            return None
        groups = _names(self.planted_test.shape[1])
        return SplitLosses(self.planted_test[:, :, None, None], groups, groups)


@pytest.fixture
def planted():
    """A factory; scores of held-out, training and test pictures, by row."""

    def make(val=VAL, train_probe=TRAIN_PROBE, test=None, items: int = 40) -> Planted:
        found = Evidence(
            scores(val, items, noise=0.02), scores(train_probe, items, noise=0.02, seed=1)
        )
        evaluation = Planted(found, exported=1, test=test)
        assert evaluation.kept == kept(found)
        return evaluation

    return make
