"""Spherical k-means on vectors rounded to 127ths: the same clusters on any device, with any number of threads.

Dhillon and Modha (2001), "Concept Decompositions for Large Sparse Text Data Using Clustering". Products of
rounded vectors are integers that single precision holds exactly: by Cauchy and Schwarz the sum of the sizes of
their terms is at most (127 + sqrt(D) / 2)**2, below 2**15 for 512 dimensions and below 2**24 for any CLIP.
"""

from __future__ import annotations

import numpy as np

STEP = 127  # steps from 0 to 1
SAMPLE, LARGEST_SAMPLE = 64, 1 << 20  # vectors for each cluster to train on, and in all

_ROUNDS = 8
_PRODUCTS = 1 << 25  # that are in memory at a time: 128 MB


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors (N, D) in ``STEP`` ths: (N, D) int8."""
    return np.clip(np.rint(vectors * np.float32(STEP)), -STEP, STEP).astype(np.int8)


def trained(sample: np.ndarray, count: int) -> np.ndarray:
    """The centroids (count, D) int8 of a sample (S, D) int8 of S >= count vectors; its first ones are the seeds.

    A cluster that loses all its vectors keeps its centroid.
    """
    import torch

    centroids = sample[:count].copy()
    labels = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        before, labels = labels, assigned(sample, centroids, 1)[:, 0]
        if np.array_equal(before, labels):
            break
        sums = torch.zeros((count, sample.shape[1]), dtype=torch.int64)
        for start in range(0, len(sample), 1 << 16):
            at = slice(start, start + (1 << 16))
            sums.index_add_(
                0, torch.from_numpy(labels[at]), torch.from_numpy(sample[at].astype(np.int64))
            )
        centroids = _unit(sums.numpy(), centroids)
    return centroids


def _unit(sums: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Sums (K, D) int64 as rounded unit vectors; ``before`` where a sum is zero."""
    # Squares are exact in int64; their sum is as well, in whatever order.
    squares = (sums**2).sum(axis=1)
    length = np.sqrt(np.maximum(squares, 1).astype(np.float64))
    units = np.rint(sums / length[:, None] * STEP).astype(np.int8)
    return np.where((squares == 0)[:, None], before, units)


def assigned(vectors: np.ndarray, centroids: np.ndarray, nearest: int) -> np.ndarray:
    """For vectors (N, D) int8 the ``nearest`` of the centroids (K, D) int8, the first of equal ones: (N, nearest)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    to = torch.from_numpy(centroids).to(device).float().T
    order = torch.arange(len(centroids), dtype=torch.int32, device=device)
    found = np.empty((len(vectors), nearest), np.int64)
    block = max(1, _PRODUCTS // len(centroids))
    for start in range(0, len(vectors), block):
        rows = torch.from_numpy(vectors[start : start + block]).to(device).float()
        products = rows @ to
        for place in range(nearest):
            # The first of equal ones on any device.
            largest = products == products.amax(dim=1, keepdim=True)
            best = torch.where(largest, order, len(order)).amin(dim=1).long()
            found[start : start + block, place] = best.cpu().numpy()
            products.scatter_(1, best[:, None], -float("inf"))
    return found
