"""The order of samples where pictures have several shapes: batches of one shape each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

from finetune.data import WeightedPlan, keyed_seed


class BucketPlan:
    """The endless sequence of batches; all samples of one are of the same bucket.

    Each bucket goes through its pictures as a training without buckets goes through all, a permutation for each pass.
    A round is one pass over everything (with weights: one round of ``WeightedPlan``), in which a bucket gives the whole
    batches that it has samples for; what is left over comes first in its next round. So no picture is left out or seen
    a second time before all others of its bucket were, and after R rounds a bucket of n pictures has given
    floor(R * n / batch size) batches. Within a round the batches of all buckets are mixed at random.

    A bucket of fewer pictures than a batch gives one in some rounds only, and then holds them more than once.

    Args:
        seed: of the mixture.
        buckets: the order of each bucket's samples, by a name that is the same in every start.
        batch_size: over all processes.
        mixture: the same without buckets, which knows the shares of several sources.
    """

    def __init__(
        self,
        seed: int,
        buckets: Mapping[str, WeightedPlan],
        batch_size: int,
        mixture: WeightedPlan,
    ) -> None:
        self.seed, self.buckets, self.batch_size = seed, dict(sorted(buckets.items())), batch_size
        self.mixture = mixture
        self._known: tuple[int, list[tuple[str, int]]] = (-1, [])

    @classmethod
    def of(
        cls,
        seed: int,
        shapes: Sequence[tuple[int, ...]],
        batch_size: int,
        sources: Mapping[str, np.ndarray] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> BucketPlan:
        """That of samples of these shapes.

        Args:
            seed: of all orders.
            shapes: [N], of each sample.
            batch_size: see above.
            sources, weights: see ``WeightedPlan``, over all samples.
        """
        if sources is None or weights is None:
            sources, weights = {"": np.arange(len(shapes))}, {"": 1.0}
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, shape in enumerate(shapes):
            places["x".join(map(str, shape))].append(place)
        buckets = {}
        for name, mine in places.items():
            shared = {each: np.intersect1d(theirs, mine) for each, theirs in sources.items()}
            there = {each: theirs for each, theirs in shared.items() if len(theirs)}
            buckets[name] = WeightedPlan(keyed_seed(seed, "bucket", name), there, weights)
        return cls(seed, buckets, batch_size, WeightedPlan(seed, sources, weights))

    def __call__(self, start: int, number: int) -> np.ndarray:
        """Indices of the ``number`` samples from position ``start``, int64; whole batches are of one bucket."""
        size = self.batch_size
        first, last = start // size, -(-(start + number) // size)
        found = np.concatenate([self._batch(batch) for batch in range(first, last)])
        return found[start - first * size :][:number]

    def _batch(self, number: int) -> np.ndarray:
        in_round = self._round_of(number)
        if self._known[0] != in_round:
            self._known = in_round, self._round(in_round)
        name, serial = self._known[1][number - self._before(in_round)]
        return self.buckets[name](serial * self.batch_size, self.batch_size)

    def _of_bucket(self, name: str, number: int) -> int:
        """Batches of a bucket before round ``number``."""
        return self.buckets[name].before(number) // self.batch_size

    def _before(self, number: int) -> int:
        """Batches before a round."""
        return sum(self._of_bucket(name, number) for name in self.buckets)

    def _round_of(self, batch: int) -> int:
        """The round that a batch is in: the last one that begins at or before it. Rounds may be empty."""
        high = 1
        while self._before(high) <= batch:
            high *= 2
        low = high // 2
        while high - low > 1:  # before(low) <= batch < before(high)
            middle = (low + high) // 2
            low, high = (middle, high) if self._before(middle) <= batch else (low, middle)
        return low

    def _round(self, number: int) -> list[tuple[str, int]]:
        """The batches of a round: bucket, and which of its batches; those of one bucket keep their order."""
        first, end = (
            {name: self._of_bucket(name, each) for name in self.buckets}
            for each in (number, number + 1)
        )
        names = [name for name in self.buckets for _ in range(first[name], end[name])]
        mixed = np.random.default_rng(keyed_seed(self.seed, "buckets", number))
        order = [names[place] for place in mixed.permutation(len(names))]
        serials = {name: count(first[name]) for name in self.buckets}
        return [(name, next(serials[name])) for name in order]
