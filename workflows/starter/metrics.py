"""What a matrix of picture-caption similarities says of a CLIP: separation, recall, what a cut keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def mismatched(similarity: Tensor) -> Tensor:
    """All entries of a square matrix but its diagonal, ascending."""
    apart = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return similarity[apart].sort().values


def separation(similarity: Tensor) -> float:
    """AUC of matched against all mismatched pairs of a square matrix; ties count half.

    The probability that a picture's own caption scores above another picture's caption
    (Mann-Whitney U over its largest value).
    """
    matched = similarity.diagonal().contiguous()
    others = mismatched(similarity)
    below = torch.searchsorted(others, matched, side="left").double()
    up_to = torch.searchsorted(others, matched, side="right").double()
    return float(((below + up_to) / 2).mean() / len(others))


def recall(similarity: Tensor, at: int) -> float:
    """Share of pictures (rows) whose own caption (same column) is among the `at` most similar.

    Ties count against the model, so that a blind one recalls nothing.
    """
    rivals = (similarity >= similarity.diagonal()[:, None]).sum(dim=1) - 1
    return float((rivals < at).double().mean())


def kept_share(similarity: Tensor, false_keep_rate: float) -> float:
    """Share of matched pairs above the cut that `false_keep_rate` of the mismatched pairs pass."""
    others = mismatched(similarity)
    cut = others[len(others) - int(false_keep_rate * len(others)) - 1]
    return float((similarity.diagonal() > cut).double().mean())
