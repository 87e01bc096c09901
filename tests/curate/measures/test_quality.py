"""Quality measures against closed forms, and against cleanvision's scores of the same pictures."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curate.measures.quality import COLUMNS, measure

# s(h) of the histogram of one flat grey of 64 x 64: one bin of 256 holds all 4,096 pixels.
FLAT = 1 - math.exp(-(4096 * math.sqrt(255) / 256) / 100)


def test_a_flat_picture_has_no_edges_and_no_information():
    found = measure(Image.new("RGB", (64, 64), (255, 0, 0)))
    assert set(found) == set(COLUMNS)
    red = math.sqrt(0.241)
    assert found["brightness"] == pytest.approx(red)
    assert found["brightness_p5"] == found["brightness_p99"] == pytest.approx(red, abs=1e-6)
    # Joint histogram: bin 255 of red, bin 0 of green and of blue, a third each.
    assert found["information"] == pytest.approx(math.log2(3) / 10)
    # The outermost pixels have no edge and keep their grey, 76 of red.
    border = (4 * 63) / 64**2
    edges = 76 * math.sqrt(border * (1 - border))
    assert found["sharpness"] == pytest.approx(min(1, FLAT + 1 - math.exp(-edges / 100)))


def test_sharpness_is_the_spread_of_the_edges():
    """A dot in the middle: 8 x 255 clips to 255 there, its neighbours clip to 0."""
    image = Image.new("L", (9, 9))
    image.putpixel((4, 4), 255)
    share = 1 / 81
    edges = 255 * math.sqrt(share * (1 - share))
    counts = np.zeros(256)
    counts[[0, 255]] = 80, 1
    spread = 1 - math.exp(-counts.std() / 100)
    assert spread < 0.18  # so it counts for nothing
    assert measure(image.convert("RGB"))["sharpness"] == pytest.approx(1 - math.exp(-edges / 100))


def test_percentiles_of_a_ramp():
    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None], 4, 0)).convert("RGB")
    found = measure(ramp)
    for name, percent in (("brightness_p5", 5), ("brightness_p99", 99)):
        exact = np.percentile(np.repeat(np.arange(256), 4), percent) / 255
        assert found[name] == pytest.approx(exact, abs=1e-6)
    assert found["information"] == pytest.approx(math.log2(768) / 10)  # all bins are equal


def test_large_pictures_are_judged_by_a_grid_of_their_pixels():
    blocks = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    small = Image.fromarray(blocks).resize((1000, 1000), Image.Resampling.BICUBIC)
    large = small.resize((2500, 2500), Image.Resampling.BICUBIC)
    one, other = measure(small), measure(large)
    for name in ("brightness_p5", "brightness_p99", "sharpness"):
        assert one[name] == pytest.approx(other[name], abs=0.01)


def test_cleanvisions_defaults_find_what_was_spoilt(shared):
    spoilt = dict.fromkeys(("blurry", "dark", "light", "empty"), 0)
    sound = dict.fromkeys(spoilt, 0)
    files = sorted((shared / "coco_mini").glob("*2017/*.jpg"))[:20]
    for file in files:
        image = Image.open(file).convert("RGB")
        treated = {
            "blurry": image.filter(ImageFilter.GaussianBlur(max(image.size) / 12)),
            "dark": image.point(lambda value: value // 8),
            "light": image.point(lambda value: 247 + value // 32),
            "empty": image.resize((1, 1)).resize(image.size),
        }
        for name, picture in treated.items():
            sound[name] += flagged(measure(image))[name]
            spoilt[name] += flagged(measure(picture))[name]
    assert min(spoilt["dark"], spoilt["light"], spoilt["empty"]) == len(files)
    assert spoilt["blurry"] >= len(files) / 2  # a lenient line
    assert max(sound.values()) <= 1


def flagged(values):
    return {
        "blurry": values["sharpness"] < 0.29,
        "dark": values["brightness_p99"] < 0.32,
        "light": values["brightness_p5"] > 0.95,
        "empty": values["information"] < 0.30,
    }
