"""A picture in 96 bytes: the mean of each cell, in the formulas of JFIF."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from curate.measures.thumbnail import BYTES, chroma, luma, mirrored, thumbnail


@pytest.fixture
def picture():
    blocks = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((96, 64), Image.Resampling.BICUBIC)


def stored(image):
    return np.frombuffer(thumbnail(image), np.uint8)[None]


def test_it_holds_the_means_of_the_cells(picture):
    red, green, blue = np.moveaxis(np.asarray(picture, float), -1, 0)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    blueness = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue
    redness = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue

    def means(channel, cells):
        return channel.reshape(cells, 64 // cells, cells, 96 // cells).mean((1, 3)).ravel()

    assert len(thumbnail(picture)) == BYTES
    np.testing.assert_allclose(luma(stored(picture))[0], means(bright, 8), atol=1.5)
    colours = np.concatenate([means(blueness, 4), means(redness, 4)])
    np.testing.assert_allclose(chroma(stored(picture))[0], colours, atol=1.5)


def test_size_and_shape_of_the_picture_do_not_matter(picture):
    for size in ((48, 32), (192, 128), (64, 64)):
        found = stored(picture.resize(size, Image.Resampling.BOX)).astype(int)
        assert np.abs(found - stored(picture)).max() <= 2


def test_the_thumbnail_of_the_mirror_image_is_the_mirrored_thumbnail(picture):
    both = np.concatenate([stored(picture), stored(ImageOps.flip(picture))])
    expected = [stored(ImageOps.mirror(image)) for image in (picture, ImageOps.flip(picture))]
    np.testing.assert_array_equal(mirrored(both), np.concatenate(expected))
    assert mirrored(both[:0]).shape == (0, BYTES)
