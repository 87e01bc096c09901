"""The contact sheet: its prompts, seeds and layout."""

from types import SimpleNamespace

import pytest
from PIL import Image

from workflows.starter import sheet
from workflows.starter.emoji_sets import is_held_out, names_of


def test_all_prompts_are_names_of_emoji() -> None:
    emoji = pytest.importorskip("emoji", reason="the package emoji (extra demo) is not installed")
    names = {names_of(sequence)[0] for sequence in emoji.EMOJI_DATA}  # type: ignore[index]
    assert names.issuperset(sheet.COMMON + sheet.UNSEEN)


def test_fifty_prompts_were_trained_on_and_ten_were_not() -> None:
    assert len(set(sheet.COMMON)) == 50
    assert not any(is_held_out(prompt) for prompt in sheet.COMMON)
    assert all(is_held_out(prompt) for prompt in sheet.UNSEEN)


def test_a_prompt_s_seed_is_its_position() -> None:
    def pipeline(prompts, generator, **_):
        seeds = [g.initial_seed() for g in generator]
        return SimpleNamespace(images=list(zip(prompts, seeds, strict=True)))

    prompts = tuple(f"thing {number}" for number in range(23))
    assert sheet.draw(pipeline, prompts) == [(f"thing {n}", n) for n in range(23)]


def test_images_are_in_rows_with_labels_below() -> None:
    colours = [(number, 0, 0) for number in range(12)]
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    laid = sheet.lay_out(images, ("",) * 12)
    row = 8 * sheet.SCALE + sheet.LABEL_PX
    assert laid.size == (8 * sheet.SCALE * 10, row * 2)
    assert laid.getpixel((8 * sheet.SCALE + 5, row + 5)) == (11, 0, 0)
    assert laid.getpixel((5, row - 2)) == (255, 255, 255)
