"""Batches of one shape each: what every bucket gives, in which order, from any number on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from finetune.bucket_plan import BucketPlan


def shapes_of(counts: list[int]) -> list[tuple[int, ...]]:
    """Pictures of as many shapes as there are counts, mixed."""
    shapes = [(4, 8 + number, 8) for number, count in enumerate(counts) for _ in range(count)]
    return [shapes[place] for place in np.random.default_rng(0).permutation(len(shapes))]


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([8, 4, 12], 4),
        ([7, 3, 1], 4),
        ([1], 5),
        ([2, 2, 2, 2], 16),
        ([40, 1, 17, 5, 9], 8),
        ([3], 1),
    ],
)
def test_no_batch_mixes_shapes_and_each_bucket_goes_through_its_pictures_again_and_again(
    counts, size
):
    """In every pass each picture once; after R rounds floor(R n / size) batches; to the end of several rounds."""
    shapes = shapes_of(counts)
    plan = BucketPlan.of(3, shapes, size)
    rounds = 3 * size
    batches = sum(rounds * count // size for count in counts)
    samples = plan(0, batches * size).reshape(-1, size)
    given: dict[tuple[int, ...], list[int]] = {shape: [] for shape in set(shapes)}
    for batch in samples.tolist():
        [shape] = {shapes[place] for place in batch}
        given[shape] += batch
    for shape, found in given.items():
        mine = [place for place, each in enumerate(shapes) if each == shape]
        assert len(found) == rounds * len(
            mine
        )  # as rounds is a multiple of size, nothing is left over
        passes = np.array(found).reshape(rounds, -1)
        assert all(sorted(each) == mine for each in passes.tolist())
        if len(mine) > 3:
            assert len({tuple(each) for each in passes.tolist()}) > rounds / 2


def test_in_each_round_a_bucket_gives_the_whole_batches_it_has_samples_for():
    shapes = shapes_of([13, 6, 3])
    plan = BucketPlan.of(0, shapes, 4)
    start = 0
    for number in range(1, 20):
        end = sum(number * count // 4 for count in (13, 6, 3))
        found = Counter(shapes[place] for place in plan(start * 4, (end - start) * 4))
        expected = {
            (4, 8 + n, 8): 4 * (number * count // 4 - (number - 1) * count // 4)
            for n, count in enumerate((13, 6, 3))
        }
        assert found == Counter({shape: count for shape, count in expected.items() if count})
        start = end


def test_the_plan_can_start_anywhere_and_depends_on_the_seed():
    shapes = shapes_of([13, 6, 1])
    whole = BucketPlan.of(0, shapes, 4)(0, 400)
    plan = BucketPlan.of(0, shapes, 4)
    for start, count in ((0, 4), (396, 4), (40, 8), (7, 3), (4, 4), (121, 77)):
        np.testing.assert_array_equal(plan(start, count), whole[start : start + count])
    assert not np.array_equal(BucketPlan.of(1, shapes, 4)(0, 400), whole)
    buckets = [shapes[place] for place in whole[::4]]
    assert 10 < sum(one != other for one, other in pairwise(buckets)) < 90


def test_weights_of_curations_hold_in_every_bucket_and_over_all():
    """A picture of weight 0.5 is seen half as often as one of weight 1, whatever bucket it is in."""
    shapes = shapes_of([20, 12, 5])
    sources = {"a": np.arange(0, 37, 2), "b": np.arange(1, 37, 2)}
    plan = BucketPlan.of(5, shapes, 4, sources, {"a": 1.0, "b": 0.5})
    rounds = 80
    total = sum(plan._of_bucket(name, rounds) for name in plan.buckets)
    seen = Counter(plan(0, 4 * total).tolist())
    for place in range(37):
        assert seen[place] == pytest.approx(rounds * (1.0 if place % 2 == 0 else 0.5), abs=5)
    assert plan.mixture.shares == pytest.approx({"a": 19 / 28, "b": 9 / 28})
    one_sided = BucketPlan.of(5, [(1, 1, 1)] * 4 + [(1, 2, 1)] * 4, 2,
                              {"a": np.arange(4), "b": np.arange(4, 8)}, {"a": 1.0, "b": 0.5})  # fmt: skip
    seen = Counter(one_sided(0, 2 * 60).tolist())
    assert [seen[place] for place in range(8)] == [20] * 4 + [10] * 4
