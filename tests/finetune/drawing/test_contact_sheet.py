"""A contact sheet shows each picture in its row and column, on as many sheets as are needed."""

import pytest
from PIL import Image

from finetune.drawing import contact_sheet

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def files(tmp_path):
    def made(size=(64, 64)):
        found = {}
        for name, colour in COLOURS.items():
            found[name] = tmp_path / f"{name}.png"
            Image.new("RGB", size, colour).save(found[name])
        return found

    return made


def colours_of(sheet, rows):
    """The saturated colours of each row, from left to right."""
    known = {value: name for name, value in COLOURS.items()}
    found = []
    for y in range(sheet.height):
        line = [known[p] for x in range(sheet.width) if (p := sheet.getpixel((x, y))) in known]
        distinct = list(dict.fromkeys(line))
        if distinct and (not found or found[-1] != distinct):
            found.append(distinct)
    assert len(found) == rows
    return found


def test_pictures_are_where_their_labels_are(files):
    of = files()
    cells = [[of["red"], of["green"]], [of["blue"], of["red"]]]
    [sheet] = contact_sheet.sheets(
        cells, ["a", "b\x1b\nc" * 40], ["base", "step 450\nLoRA × 0.5"], "n"
    )
    assert colours_of(sheet, 2) == [["red", "green"], ["blue", "red"]]
    assert sheet.width < 600


@pytest.mark.parametrize(
    ("size", "shown"), [((64, 32), (128, 64)), ((1024, 512), (256, 128)), ((200, 200), (200, 200))]
)
def test_small_ones_are_enlarged_and_large_ones_shrunk(files, size, shown):
    of = files(size)
    [sheet] = contact_sheet.sheets([[of["red"]]], ["a"], ["b"], "")
    red = [
        (x, y)
        for x in range(sheet.width)
        for y in range(sheet.height)
        if sheet.getpixel((x, y)) == (255, 0, 0)
    ]
    assert (
        max(x for x, _ in red) - min(x for x, _ in red) + 1,
        max(y for _, y in red) - min(y for _, y in red) + 1,
    ) == shown


def test_many_rows_and_columns(files, monkeypatch):
    monkeypatch.setattr(contact_sheet, "HIGHEST", 500)
    monkeypatch.setattr(contact_sheet, "WIDEST", 1000)
    of = files()
    found = list(contact_sheet.sheets([[of["red"]] * 20] * 30, ["a"] * 30, ["b"] * 20, ""))
    assert len(found) > 1
    assert all(sheet.height <= 500 and sheet.width <= 1010 for sheet in found)
