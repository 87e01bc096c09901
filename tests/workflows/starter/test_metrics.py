"""The starter CLIP's metrics, compared with counting pairs one by one."""

import pytest
import torch
from torch import Tensor

from workflows.starter import metrics


def similarities(seed: int = 0) -> Tensor:
    """A square matrix with ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 6, (12, 12), generator=generator).float()


def test_auc_counts_pairs() -> None:
    similarity = similarities()
    wins, pairs = 0.0, 0
    for own in similarity.diagonal():
        for row in range(12):
            for column in range(12):
                if row != column:
                    other = similarity[row, column]
                    wins += 1.0 if own > other else 0.5 if own == other else 0.0
                    pairs += 1
    assert metrics.auc(similarity) == pytest.approx(wins / pairs)


def test_auc_of_a_perfect_and_of_a_constant_model() -> None:
    assert metrics.auc(torch.eye(5)) == 1.0
    assert metrics.auc(torch.zeros(5, 5)) == 0.5


def test_recall_counts_pictures_with_few_better_captions() -> None:
    similarity = similarities()
    found = 0
    for row in range(12):
        own = similarity[row, row]
        rivals = [c for c in range(12) if c != row and similarity[row, c] >= own]
        found += len(rivals) < 3
    assert 0 < found < 12
    assert metrics.recall(similarity, at=3) == pytest.approx(found / 12)


def test_recall_of_a_perfect_and_of_a_constant_model() -> None:
    assert metrics.recall(torch.eye(8), at=1) == 1.0
    assert metrics.recall(torch.zeros(8, 8), at=5) == 0.0


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
def test_the_threshold_keeps_the_allowed_share_of_mismatched_pairs(rate: float) -> None:
    generator = torch.Generator().manual_seed(1)
    similarity = torch.randn((30, 30), generator=generator) + torch.eye(30)
    others = [similarity[r, c].item() for r in range(30) for c in range(30) if r != c]
    allowed = int(rate * len(others))
    threshold = sorted(others, reverse=True)[allowed]
    assert sum(other > threshold for other in others) == allowed
    expected = sum(own > threshold for own in similarity.diagonal().tolist()) / 30
    assert metrics.kept_share(similarity, rate) == pytest.approx(expected)
