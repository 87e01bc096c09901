"""A CLIP's metrics from a matrix of picture-caption similarities: AUC, recall, kept share."""

from __future__ import annotations

import torch
from torch import Tensor


def mismatched(similarity: Tensor) -> Tensor:
    """All entries of a square matrix except its diagonal, ascending."""
    apart = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return similarity[apart].sort().values


def auc(similarity: Tensor) -> float:
    """AUC of matched against mismatched pairs of a square matrix; ties count half.

    The probability that a picture's own caption scores above another picture's caption
    (Mann-Whitney U divided by its maximum).
    """
    matched = similarity.diagonal().contiguous()
    others = mismatched(similarity)
    below = torch.searchsorted(others, matched, side="left").double()
    up_to = torch.searchsorted(others, matched, side="right").double()
    return float(((below + up_to) / 2).mean() / len(others))


def recall(similarity: Tensor, at: int) -> float:
    """Share of pictures (rows) whose own caption (same column) is among the `at` most similar.

    Ties rank above the own caption, so a model with constant output has recall 0.
    """
    rivals = (similarity >= similarity.diagonal()[:, None]).sum(dim=1) - 1
    return float((rivals < at).double().mean())


def kept_share(similarity: Tensor, false_keep_rate: float) -> float:
    """Share of matched pairs above the threshold that `false_keep_rate` of the mismatched pairs pass."""
    others = mismatched(similarity)
    threshold = others[len(others) - int(false_keep_rate * len(others)) - 1]
    return float((similarity.diagonal() > threshold).double().mean())
