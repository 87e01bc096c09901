"""Near neighbours: hashes by Hamming distance, vectors by cosine, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np

from curate.run.hashing import GOLDEN

BITS = 64
UNSURE = 1e-5  # float32 products of unit vectors err by less; how much depends on their place

_SORT_COST = 2  # of sorting one hash into a table, in comparisons of two hashes
_GATHERED = 1 << 20  # pairs that are joined at a time
_SLICE = 256  # rows of a block of cosines whose pairs are listed at a time
_EXACT = 1 << 11  # pairs of vectors whose cosine is computed in double precision at a time
_MOST_PAIRS = 1 << 22  # of hashes that are held in memory: 64 MB, sorting takes 240

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]
"""Pairs of positions in blocks: two integer arrays (M,), each pair once, in no order."""


def hamming_pairs(hashes: np.ndarray, distance: int) -> Pairs:
    """All pairs of hashes that differ in ``distance`` bits or fewer, none missed.

    Two such hashes, cut into ``distance + k`` bands, agree in at least k of them (Norouzi, Punjani and
    Fleet 2012, "Fast Search in Hamming Space with Multi-Index Hashing", use k = 1). For each choice of
    k bands the hashes are sorted by those bands and compared where they agree. Memory grows with N
    only. A million random hashes take half a second at distance 4 and half a minute at 8.

    Args:
        hashes: (N,) uint64. Of equal ones all pairs are among the results; the caller should group what
            is equal in other respects, too.
        distance: 0 ... 16 bits.
    """
    bands = _bands(distance + _agreeing(len(hashes), distance))
    for chosen in combinations(range(len(bands)), len(bands) - distance):
        mask = np.bitwise_or.reduce(bands[list(chosen)], dtype=np.uint64)
        earlier = [bands[band] for band in range(max(chosen, default=0)) if band not in chosen]
        for first, second in _agreeing_pairs(hashes & mask):
            differing = hashes[first] ^ hashes[second]
            near = (differing & mask == 0) & (np.bitwise_count(differing) <= distance)
            for band in earlier:  # a pair that agrees there too was found in an earlier table
                near &= (differing & band) != 0
            if near.any():
                yield first[near], second[near]


def _agreeing(count: int, distance: int) -> int:
    """The k that is cheapest on random hashes; 0 compares all pairs."""

    def cost(k: int) -> float:
        agreeing_bits = BITS * k / max(distance + k, 1)
        return comb(distance + k, k) * (_SORT_COST * count + count**2 / 2 ** (agreeing_bits + 1))

    return min(range(1 if distance == 0 else 0, 6), key=cost)


def _bands(count: int) -> np.ndarray:
    """Masks (count,) that divide the 64 bits into bands."""
    bounds = [BITS * band // count for band in range(count + 1)]
    masks = [(1 << high) - (1 << low) for low, high in pairwise(bounds)]
    return np.array(masks, np.uint64)


def _agreeing_pairs(values: np.ndarray) -> Pairs:
    """Pairs of positions whose values are equal, and rarely some whose values are not.

    Value and position are packed into one number: sorting numbers takes a fifth of the time of an
    argsort. The bits that the position leaves free hold the value's multiplicative hash (Knuth, TAOCP
    3, sec. 6.4).
    """
    below = np.uint64((1 << max(len(values) - 1, 1).bit_length()) - 1)
    numbers = values * np.uint64(GOLDEN) & ~below | np.arange(len(values), dtype=np.uint64)
    numbers.sort()
    order = (numbers & below).astype(np.int64)
    left = np.flatnonzero(numbers[1:] ^ numbers[:-1] <= below)
    step = 1
    while len(left):
        yield order[left], order[left + step]
        step += 1
        left = left[: np.searchsorted(left, len(numbers) - step)]
        left = left[numbers[left] ^ numbers[left + step] <= below]


def cosine_pairs(vectors: np.ndarray, cosine: float, block: int = 4096) -> Pairs:
    """All pairs of vectors whose cosine, rounded to six digits, is at least ``cosine``, block by block.

    It runs on a CUDA device if there is one. The work grows with N squared: 20,000 vectors of 512
    dimensions took 12 s on one core. Cosines near the bound are computed again in double precision, so
    that neither the device nor the order of the vectors decides.

    Args:
        vectors: (N, D) float32 of unit length, or zero, which has no neighbours; may be a memmap.
        cosine: above 0, up to 1.
        block: vectors that are compared at a time; memory is its square.

    Yields:
        Pairs (i, j) with i < j. Before the first pair (i, j), all pairs (h, i) with h < i are yielded.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(start: int) -> torch.Tensor:
        return torch.from_numpy(np.array(vectors[start : start + block])).to(device)

    for top in range(0, len(vectors), block):
        rows = load(top)
        for left in range(top, len(vectors), block):
            cosines = rows @ load(left).T
            near = cosines >= cosine - UNSURE
            near = near.triu(1) if left == top else near
            if not near.any():
                continue
            # In slices: if all are near, the positions take 16 bytes a pair.
            for start in range(0, len(rows), _SLICE):
                first, second = near[start : start + _SLICE].nonzero(as_tuple=True)
                sure = cosines[start : start + _SLICE][first, second] >= cosine + UNSURE
                first, second, sure = (found.cpu().numpy() for found in (first, second, sure))
                first, second = first + top + start, second + left
                sure[~sure] = _are_near(vectors, first[~sure], second[~sure], cosine)
                yield first[sure], second[sure]


def _are_near(
    vectors: np.ndarray, first: np.ndarray, second: np.ndarray, cosine: float
) -> np.ndarray:
    """Mask (M,) of the pairs of vectors whose cosine in double precision is at least ``cosine``."""
    found = np.zeros(len(first), bool)
    for start in range(0, len(first), _EXACT):
        pairs = slice(start, start + _EXACT)
        products = vectors[first[pairs]].astype(np.float64) * vectors[second[pairs]]
        found[pairs] = products.sum(axis=1).round(6) >= cosine
    return found


def stays_by_cosine(vectors: np.ndarray, cosine: float, block: int = 4096) -> np.ndarray:
    """For each vector (N,) the position of the one that is kept for it: its own or an earlier one.

    In order of position, a vector is kept if it is near no kept one; otherwise the first kept one near
    it replaces it. Arguments as for ``cosine_pairs``.
    """
    stays = np.arange(len(vectors))
    for first, second in cosine_pairs(vectors, cosine, block):
        _decide(stays, first, second)
    return stays


def _decide(stays: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Let each position of sorted ``first`` that is kept replace the ones near it.

    All pairs with earlier positions must have been seen.
    """
    starts = np.flatnonzero(np.append(True, first[1:] != first[:-1])[: len(first)])
    for one, near_it in zip(first[starts].tolist(), np.split(second, starts[1:]), strict=False):
        if stays[one] == one:
            stays[near_it[stays[near_it] == near_it]] = one


def stays_by_hash(
    hashes: np.ndarray, distance: int, alike: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The same as ``stays_by_cosine`` for hashes (N,) of which some pairs count; see ``hamming_pairs``.

    ``alike`` takes two arrays of positions (M,) and gives the mask (M,) of the pairs that count.

    If the pairs do not fit in memory, the first half is decided, then the second half without what is
    near a kept one of the first. Those pairs are few, because no two kept ones are near each other.
    """
    count = len(hashes)
    stays, pairs = np.arange(count), _held(_counted(hamming_pairs(hashes, distance), alike))
    if pairs is not None:
        low, high = np.minimum(*pairs), np.maximum(*pairs)
        order = np.lexsort((high, low))
        _decide(stays, low[order], high[order])
        return stays
    half = count // 2
    stays[:half] = stays_by_hash(hashes[:half], distance, alike)
    keepers = np.flatnonzero(stays[:half] == np.arange(half))
    both = np.append(keepers, np.arange(half, count))
    for one, other in hamming_pairs(hashes[both], distance):
        low, high = both[np.minimum(one, other)], both[np.maximum(one, other)]
        across = (low < half) & (high >= half)
        low, high = low[across], high[across]
        near = alike(low, high)
        np.minimum.at(stays, high[near], low[near])
    left = np.flatnonzero(stays == np.arange(count))
    left = left[left >= half]
    of_left = stays_by_hash(
        hashes[left], distance, lambda one, other: alike(left[one], left[other])
    )
    stays[left] = left[of_left]
    return stays


def _counted(pairs: Pairs, alike: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Pairs:
    for one, other in pairs:
        near = alike(one, other)
        if near.any():
            yield one[near], other[near]


def _held(pairs: Pairs) -> tuple[np.ndarray, np.ndarray] | None:
    """All pairs at once; None if they are more than memory should hold."""
    blocks, size = [], 0
    for block in pairs:
        blocks.append(block)
        size += len(block[0])
        if size > _MOST_PAIRS:
            return None
    return joined(blocks)


def components(count: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Connected components (count,) of 0 ... count - 1 under ``pairs``; each is named by its smallest member."""
    parent = np.arange(count)
    for first, second in gathered(pairs):
        while len(first):
            one, other = parent[first], parent[second]
            apart = one != other
            first, second = first[apart], second[apart]
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(parent, high, low)
            while not np.array_equal(shorter := parent[parent], parent):
                parent = shorter
    return parent


def gathered(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Pairs:
    """The same pairs in larger blocks, as each block costs a pass over all parents."""
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    size = 0
    for block in pairs:
        blocks.append(block)
        size += len(block[0])
        if size >= _GATHERED:
            yield joined(blocks)
            blocks, size = [], 0
    yield joined(blocks)


def joined(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All blocks as one; empty if there are none."""
    none = np.empty(0, np.int64)
    first, second = zip((none, none), *pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)
