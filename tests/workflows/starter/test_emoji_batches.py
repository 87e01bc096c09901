"""Sampling of batches, and the limits of each augmentation."""

import numpy as np
import pytest
import torch

from workflows.starter import emoji_batches
from workflows.starter.emoji_sets import Pictures

TONES = ("light", "medium", "dark")


@pytest.fixture
def pictures() -> Pictures:
    """Twenty plain concepts in two styles each; the first also in three tones, one style."""
    captions = [f"thing {index}" for index in range(20)] * 2
    captions += [f"thing 0 {tone} skin tone" for tone in TONES]
    concepts = [f"thing {index}" for index in range(20)] * 2 + ["thing 0"] * 3
    styles = ["a"] * 20 + ["b"] * 20 + ["a"] * 3
    count = len(captions)
    return Pictures(
        np.zeros((count, 8, 8, 3), np.uint8),
        np.array(captions),
        np.array(concepts),
        np.array(styles),
        np.array([""] * count),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_caption_repeats_within_a_batch(pictures: Pictures) -> None:
    sampler = emoji_batches.CaptionSampler(pictures)
    for seed in range(20):
        rows = sampler.draw(23, generator(seed)).numpy()
        assert len(set(pictures.captions[rows])) == 23


def test_captions_and_styles_are_drawn_by_their_weights(pictures: Pictures) -> None:
    sampler = emoji_batches.CaptionSampler(pictures, toned_weight=3.0)
    draws = np.concatenate([sampler.draw(1, generator(seed)).numpy() for seed in range(6000)])
    expected = 3 / (20 + 3)
    error = np.sqrt(expected * (1 - expected) / len(draws))
    assert abs(pictures.toned()[draws].mean() - expected) < 4 * error
    plain = draws[~pictures.toned()[draws]]
    assert abs((pictures.sets[plain] == "b").mean() - 0.5) < 4 * np.sqrt(0.25 / len(plain))


def test_floats_keep_channels_and_range() -> None:
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images[0, 0, 1] = (255, 0, 51)
    tensor = emoji_batches.as_floats(images, torch.device("cpu"))
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor[0, :, 0, 1].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_outlines_are_black_on_edges_and_leave_flat_ground_white() -> None:
    images = torch.ones(4, 3, 32, 32)
    images[:, 1:, 8:24, 8:24] = 0  # a red square
    drawn = emoji_batches.outline(images, generator())
    assert drawn.shape == images.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (drawn[:, :, 16, 8] < 0.05).all()  # its left side
    assert (drawn[:, :, :5, :5] > 0.9).all()  # far from it
    assert (drawn[:, 0, 16, 16] > 0.9).all()  # its inside is still red, perhaps paler
    assert (drawn[:, 1, 16, 16] <= 0.5).all()


def test_a_moved_white_picture_is_white() -> None:
    white = torch.ones(3, 3, 16, 16)
    assert torch.equal(emoji_batches.random_affine(white, generator()), white)


def test_a_random_affine_shifts_a_dot_by_at_most_the_limit() -> None:
    images = torch.ones(64, 3, 50, 50)
    images[:, :, 24:26, 24:26] = 0
    ink = 1 - emoji_batches.random_affine(images, generator())[:, 0]
    columns = torch.arange(50).float() + 0.5
    centre = (ink.sum(dim=1) * columns).sum(dim=1) / ink.sum(dim=(1, 2))
    # 8 % of the width, times the largest scale.
    assert (centre - 25).abs().max() <= 0.08 * 50 * 1.15 + 0.5
    assert (centre - 25).abs().max() > 1


def test_a_placed_picture_is_complete_and_within_the_size_limits() -> None:
    images = torch.ones(200, 3, 96, 96)
    images[:, :, 16:80, 16:80] = 0  # a square, two thirds of the width
    placed = emoji_batches.place(images, generator())
    assert placed.shape == (200, 3, 64, 64)
    assert torch.equal(
        emoji_batches.place(torch.ones(2, 3, 96, 96), generator()), torch.ones(2, 3, 64, 64)
    )
    ink = 1 - placed[:, 0]
    share = ink.sum(dim=(1, 2)) / (64 * 2 / 3) ** 2  # nothing is cut off, even when rotated
    assert 0.65**2 * 0.99 < share.min() < 0.5
    assert 0.9 < share.max() < 1.01
    columns = torch.arange(64).float() + 0.5
    centre = (ink.sum(dim=1) * columns).sum(dim=1) / ink.sum(dim=(1, 2))
    slack = (1 - share.sqrt()) * 32
    assert ((centre - 32).abs() <= slack + 0.5).all()
    assert (centre - 32).abs().max() > 5


def test_swapped_channels_are_the_same_three_and_half_of_the_pictures_keep_theirs() -> None:
    images = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).repeat(4000, 1, 2, 2)
    swapped = emoji_batches.swap_channels(images, generator())
    assert torch.equal(swapped.sort(dim=1).values, images)
    # A permutation is the identity once in six.
    kept = (swapped == images).all(dim=(1, 2, 3)).float().mean()
    assert abs(kept - (0.5 + 0.5 / 6)) < 4 * (0.25 / 4000) ** 0.5


def test_augmentation_is_in_range_and_depends_on_the_generator_only() -> None:
    images = torch.rand((8, 3, 16, 16), generator=generator(1))
    first = emoji_batches.augment(images, generator(2))
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, emoji_batches.augment(images, generator(2)))
    assert not torch.equal(first, emoji_batches.augment(images, generator(3)))


def test_half_of_the_pictures_lose_detail_finer_than_64_pixels() -> None:
    stripes = torch.zeros(200, 3, 96, 96)
    stripes[..., ::2] = 1
    coarse = emoji_batches.coarsen(stripes, generator())
    contrast = coarse.std(dim=(1, 2, 3))
    kept = contrast > 0.49
    assert torch.equal(coarse[kept], stripes[kept])
    assert 70 < kept.sum() < 130
    assert (contrast[~kept] < 0.3).all()
    assert torch.allclose(coarse[~kept].mean(), torch.tensor(0.5), atol=0.01)
