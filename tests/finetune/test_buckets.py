"""Sizes of aspect buckets as kohya publishes them, and placement against a search over all of them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from curate.run.schema import UserError
from finetune.buckets import enlarged, kept, nearest, shown, sides
from finetune.config.pictures import BucketsConfig
from finetune.crop import Crop


def test_the_sizes_are_those_that_kohya_prints_for_512_px():
    """width x height, with its defaults: steps of 64, sides of 256 to 1,024."""
    published = (
        "256x832 256x896 256x960 256x1024 320x704 320x768 384x640 448x576 512x512 "
        "576x448 640x384 704x320 768x320 832x256 896x256 960x256 1024x256"
    )
    buckets = BucketsConfig(enabled=True).sides(512)
    assert sorted(map(shown, buckets), key=lambda each: list(map(int, each.split("x")))) == (
        published.split()
    )


@pytest.mark.parametrize(
    ("resolution", "step", "least", "most"),
    [(512, 64, 256, 1024), (1024, 64, 512, 2048), (64, 8, 32, 128), (520, 64, 200, 700)],
)
def test_no_bucket_exceeds_the_area_and_none_could_be_longer(resolution, step, least, most):
    """By trying all pairs: a bucket is one of which one side is the longest that the other allows."""
    lengths = [n for n in range(step, most + 1, step) if n >= least]

    def longest(side: int) -> int:
        return max((n for n in lengths if n * side <= resolution**2), default=0)

    expected = {
        pair
        for one in lengths
        if longest(one)
        for pair in ((one, longest(one)), (longest(one), one))
    }
    expected |= {(n, n) for n in lengths if n == resolution // step * step}
    assert set(sides(resolution, step, least, most)) == expected
    assert {(w, h) for h, w in expected} == expected


def test_every_picture_is_in_the_bucket_that_crops_least():
    """Exactly, by fractions; of equally good ones the largest, and turned pictures in turned buckets."""
    rng = np.random.default_rng(0)
    buckets = sides(64, 8, 32, 128)
    sizes = rng.integers(1, 400, (2, 500))
    chosen = nearest(sizes, buckets)
    for (width, height), place in zip(sizes.T.tolist(), chosen.tolist(), strict=True):

        def share(bucket, width=width, height=height):
            ratio = Fraction(width * bucket[0], height * bucket[1])
            return min(ratio, 1 / ratio)

        best = max(map(share, buckets))
        largest = max(math.prod(each) for each in buckets if share(each) == best)
        assert share(buckets[place]) == best
        assert math.prod(buckets[place]) == largest
        found = kept(np.array([[width], [height]]), np.array(buckets[place])[:, None])
        assert found == pytest.approx([float(best)])
    turned = nearest(sizes[::-1], buckets)
    same = [
        (
            kept(sizes[:, [n]], np.array([buckets[c]]).T),
            kept(sizes[::-1, [n]], np.array([buckets[t]]).T),
        )
        for n, (c, t) in enumerate(zip(chosen, turned, strict=True))
    ]
    assert all(one == other for one, other in same)


def test_a_crop_keeps_the_share_that_is_counted_and_is_enlarged_where_counted():
    """What is cut out, scaled back to the picture, has the share's area and lies inside the picture."""
    rng = np.random.default_rng(1)
    for width, height, tall, wide in rng.integers(8, 300, (300, 4)).tolist():
        crop = Crop.of((width, height), (tall, wide), tuple(rng.random(2)))
        scale = max(tall / height, wide / width)
        size, target = np.array([[width], [height]]), np.array([[tall], [wide]])
        share = (tall / scale) * (wide / scale) / (width * height)
        assert kept(size, target) == pytest.approx([share])
        assert bool(enlarged(size, target)[0]) == (scale > 1)
        assert 0 <= crop.corner[0] <= math.ceil(height * scale - tall)
        assert 0 <= crop.corner[1] <= math.ceil(width * scale - wide)
        assert min(crop.corner) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"step": 12}, "buckets.step=12 is out of range"),
        ({"enlarge": "never"}, "accepted: warn, refuse, allow"),
        ({"min": 600, "max": 500}, "buckets.min=600"),
        ({"enabled": False, "step": 32}, "buckets.step=32 has no effect without buckets.enabled"),
        ({"enabled": False, "max": 512}, "buckets.max=512 has no effect"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        BucketsConfig(**{"enabled": True} | settings)


def test_one_bucket_alone_is_refused_with_a_step_that_makes_more():
    with pytest.raises(UserError, match=r"there is 1 bucket; .* buckets.step=8") as said:
        BucketsConfig(enabled=True).sides(64)
    assert "an area of at most 64x64" in str(said.value)
    assert len(BucketsConfig(enabled=True, step=8).sides(64)) == 17
    assert BucketsConfig().sides(64) == ()
