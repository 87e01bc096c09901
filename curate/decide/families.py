"""Groups that are joined by links between them, as long as no chain of links grows too large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curate.decide import neighbours
from curate.decide.number_files import NumberFile

LARGEST = 64  # groups that are joined; OpenMoji's largest families join 33, one of heads in all colours of hair, and 19
NEAREST = 3
"""1 leaves a third of OpenMoji's sibling pairs apart, 2 one in a hundred, 3 one in a thousand."""

_BLOCK = 1 << 18  # links in memory at a time
_ALL, _NEAREST, _MUTUAL = 0, 1, 2  # which links from a group count


class Links:
    """Links from groups to those nearest to them, in files; memory holds a few numbers for each linked group."""

    def __init__(self, folder: Path) -> None:
        """Begin without any; the files are written to ``folder``."""
        self._nodes = NumberFile(folder / "linked", np.int64)
        self._one = NumberFile(folder / "one", np.int64)
        self._other = NumberFile(folder / "other", np.int64)
        self._place = NumberFile(folder / "place", np.int8)
        self._last, self._seen = -1, 0  # the group that the last link was from, and its links

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Add links (M,) of groups; all that are added ascend by ``one``, and are from each to its nearest first.

        Of each group the ``NEAREST`` count. Of each link the way back is among those that are added.
        """
        if not len(one):
            return
        begins = np.flatnonzero(np.append(one[0] != self._last, one[1:] != one[:-1]))
        starts = np.append(0, begins[begins > 0]) if len(begins) else np.zeros(1, np.int64)
        lengths = np.diff(np.append(starts, len(one)))
        place = np.arange(len(one)) - np.repeat(starts, lengths)
        if one[0] == self._last:
            place[: lengths[0]] += self._seen
        self._nodes.append(one[begins])
        counts = place < NEAREST
        number = (
            len(self._nodes)
            - len(begins)
            - 1
            + np.searchsorted(begins, np.arange(len(one)), "right")
        )
        self._one.append(number[counts])
        self._other.append(other[counts])
        self._place.append(place[counts])
        self._last, self._seen = int(one[-1]), int(place[-1]) + 1

    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The linked groups, a label of those that are joined, and which were loosened; each (G,).

        Where more than ``LARGEST`` are joined, only links to the nearest count, and where these are too many as
        well, only those that are nearest to each other.
        """
        nodes = self._nodes.read()
        counting = np.full(len(nodes), _ALL, np.int8)
        nearest = np.full(len(nodes), -1)
        for one, other, place in self._blocks(nodes):
            nearest[one[place == 0]] = other[place == 0]
        labels = self._components(nodes, counting, nearest)
        for stricter in (_NEAREST, _MUTUAL):
            large = np.bincount(labels, minlength=len(nodes))[labels] > LARGEST
            if not large.any():
                break
            counting[large] = stricter
            labels = self._components(nodes, counting, nearest)
        return nodes, labels, counting > _ALL

    def _components(
        self, nodes: np.ndarray, counting: np.ndarray, nearest: np.ndarray
    ) -> np.ndarray:
        def counted() -> neighbours.Pairs:
            for one, other, place in self._blocks(nodes):
                stays = (counting[one] == _ALL) | (place == 0)
                stays &= (counting[one] < _MUTUAL) | (nearest[other] == one)
                yield one[stays], other[stays]

        return neighbours.components(len(nodes), counted())

    def _blocks(self, nodes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Links (M,) by the groups' positions in ``nodes``, and the place of each among those from one group."""
        files = (self._one.blocks(_BLOCK), self._other.blocks(_BLOCK), self._place.blocks(_BLOCK))
        for one, other, place in zip(*files, strict=True):
            yield one, np.searchsorted(nodes, other), place
