"""Near neighbours: hashes by Hamming distance, vectors by cosine, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Protocol

import numpy as np

from curate.run.hashing import GOLDEN

BITS = 64
_ALL = np.uint64(2**BITS - 1)
UNSURE = 1e-5  # float32 products of unit vectors err by less; how much depends on their place

_SORT_COST = 2  # of sorting one hash into a table, in comparisons of two hashes
_GATHERED = 1 << 20  # pairs that are joined at a time
_PLACES = 1 << 20  # sorted numbers that are compared with later ones at a time
_SLICE = 256  # rows of a block of cosines whose pairs are listed at a time
_EXACT = 1 << 11  # pairs of vectors whose cosine is computed in double precision at a time

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
    for table in band_tables(len(hashes), distance):
        for first, second in agreeing_pairs(hashes & table.mask):
            near = table.are_near(hashes[first] ^ hashes[second], distance)
            if near.any():
                yield first[near], second[near]


@dataclass(frozen=True, slots=True)
class BandTable:
    """A choice of bands, in which hashes of a pair agree.

    Attributes:
        mask: the bits of the chosen bands.
        earlier: bands that are not chosen, the bits of each; hashes that agree in one of them are an earlier table's.
    """

    mask: np.uint64
    earlier: tuple[np.uint64, ...]

    def are_near(self, differing: np.ndarray, distance: int) -> np.ndarray:
        """Mask (M,) of the pairs, by the bits in which they differ (M,), that this table has to find.

        A pair that agrees in an earlier table's bands as well is that table's.
        """
        near = (differing & self.mask == 0) & (np.bitwise_count(differing) <= distance)
        for band in self.earlier:
            near &= (differing & band) != 0
        return near


def band_tables(count: int, distance: int, bits: np.uint64 = _ALL) -> list[BandTable]:
    """The tables in which ``count`` hashes are compared; one without bands compares all with all.

    Bands are cut from ``bits``; in the others the hashes agree.
    """
    free = _positions(bits)
    bands = _bands(free, distance + _agreeing(count, distance, len(free)))
    tables = []
    for chosen in combinations(range(len(bands)), len(bands) - distance):
        mask = np.bitwise_or.reduce(bands[list(chosen)], dtype=np.uint64)
        earlier = (bands[band] for band in range(max(chosen, default=0)) if band not in chosen)
        tables.append(BandTable(mask, tuple(earlier)))
    return tables


def _agreeing(count: int, distance: int, bits: int = BITS) -> int:
    """The k that is cheapest on random hashes; 0 compares all pairs."""

    def cost(k: int) -> float:
        agreeing_bits = bits * k / max(distance + k, 1)
        return comb(distance + k, k) * (_SORT_COST * count + count**2 / 2 ** (agreeing_bits + 1))

    return min(range(1 if distance == 0 else 0, 6), key=cost)


def _positions(bits: np.uint64) -> list[int]:
    return [place for place in range(BITS) if int(bits) >> place & 1]


def _bands(free: list[int], count: int) -> np.ndarray:
    """Masks (count,) that divide the bits at the positions ``free`` into bands."""
    bounds = [len(free) * band // count for band in range(count + 1)]
    masks = [sum(1 << place for place in free[low:high]) for low, high in pairwise(bounds)]
    return np.array(masks, np.uint64)


def agreeing_pairs(values: np.ndarray) -> Pairs:
    """Pairs of positions whose values are equal, and rarely some whose values are not."""
    yield from pairs_in_runs(*packed(values))


def packed(values: np.ndarray) -> tuple[np.ndarray, np.uint64]:
    """Values and positions in one number each (N,), sorted, and the mask of a position's bits.

    Sorting numbers takes a fifth of the time of an argsort. The bits that the position leaves free hold
    the value's multiplicative hash (Knuth, TAOCP 3, sec. 6.4).
    """
    below = np.uint64((1 << max(len(values) - 1, 1).bit_length()) - 1)
    numbers = values * np.uint64(GOLDEN)
    numbers &= ~below
    numbers |= np.arange(len(values), dtype=np.uint64)
    numbers.sort()
    return numbers, below


def pairs_in_runs(numbers: np.ndarray, below: np.uint64) -> Pairs:
    """The positions of each two sorted ``numbers`` that differ in the bits of ``below`` alone."""
    left, step = followed(numbers, below, 1), 1
    while len(left):
        one, other = numbers[left], numbers[left + step]
        yield (one & below).astype(np.int64), (other & below).astype(np.int64)
        step += 1
        left = left[: np.searchsorted(left, len(numbers) - step)]
        left = left[numbers[left] ^ numbers[left + step] <= below]


def followed(numbers: np.ndarray, below: np.uint64, step: int) -> np.ndarray:
    """Ascending places (M,) of sorted ``numbers`` whose ``step``th after them differs in ``below`` alone."""
    found = [np.empty(0, np.int64)]
    for start in range(0, len(numbers) - step, _PLACES):
        end = min(start + _PLACES, len(numbers) - step)
        same = numbers[start:end] ^ numbers[start + step : end + step] <= below
        found.append(start + np.flatnonzero(same))
    return np.concatenate(found)


class Rows(Protocol):
    """N vectors: an array, or what gives parts of one that is not in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: slice | np.ndarray, /) -> np.ndarray: ...


def cosine_pairs(vectors: Rows, cosine: float, block: int = 4096) -> Pairs:
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
    # ``UNSURE`` holds for products in single precision; the environment may have chosen less, such as TF32.
    torch.set_float32_matmul_precision("highest")

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
                sure[~sure] = exact_cosines(vectors, first[~sure], vectors, second[~sure]) >= cosine
                yield first[sure], second[sure]


def exact_cosines(vectors: Rows, first: np.ndarray, others: Rows, second: np.ndarray) -> np.ndarray:
    """Of ``vectors[first]`` and ``others[second]`` (M,) each, in double precision, rounded to six digits: (M,).

    Products of matrices differ in their last digits with the shape of the block and the device; these do not.
    """
    found = np.zeros(len(first))
    for start in range(0, len(first), _EXACT):
        pairs = slice(start, start + _EXACT)
        products = vectors[first[pairs]].astype(np.float64) * others[second[pairs]]
        found[pairs] = products.sum(axis=1).round(6)
    return found


def stays_by_cosine(vectors: Rows, cosine: float, block: int = 4096) -> np.ndarray:
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


def components(count: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Connected components (count,) of 0 ... count - 1 under ``pairs``; each is named by its smallest member."""
    parent = np.arange(count)
    # Each block costs a pass over all parents.
    for first, second in gathered(pairs, max(_GATHERED, count // 4)):
        while len(first):
            one, other = parent[first], parent[second]
            apart = one != other
            first, second = first[apart], second[apart]
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(parent, high, low)
            while not np.array_equal(shorter := parent[parent], parent):
                parent = shorter
    return parent


def gathered(pairs: Iterable[tuple[np.ndarray, np.ndarray]], least: int = _GATHERED) -> Pairs:
    """The same pairs in blocks of ``least`` or more, but for the last one."""
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    size = 0
    for block in pairs:
        blocks.append(block)
        size += len(block[0])
        if size >= least:
            yield joined(blocks)
            blocks, size = [], 0
    yield joined(blocks)


def each_once(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (M,) without repeats, whichever way round: the lesser ones and the greater ones, ascending.

    Pairs are compared as two numbers: the product in one number for both would pass 64 bits at three billion.
    """
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    is_first = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))[: len(low)]
    return low[is_first], high[is_first]


def joined(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All blocks as one; empty if there are none."""
    none = np.empty(0, np.int64)
    first, second = zip((none, none), *pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)
