"""Contact sheets: pictures in rows and columns, with labels, as one or several pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.printable import one_line

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

HIGHEST = WIDEST = 6000  # pixels of a sheet
_LABEL_PX, _GAP_PX, _FONT_PX, _LINE_PX = 220, 6, 14, 18
_SMALLEST_PX, _LARGEST_PX, _LEAST_PX = (
    128,
    256,
    32,
)  # sides of cells: enlarged to, shrunk to, at worst
_PAPER, _INK, _FAINT = "#ececec", "#1a1a1a", "#6b6b6b"


def sheets(
    cells: Sequence[Sequence[Path]], rows: Sequence[str], columns: Sequence[str], note: str
) -> Iterator[Image.Image]:
    """One sheet for as many rows as fit on it.

    Args:
        cells: [rows][columns] files of pictures, all of one size.
        rows, columns: their labels; a label of a column may have several lines.
        note: a line on top of each sheet.
    """
    from PIL import Image

    with Image.open(cells[0][0]) as first:
        width, height = _cell(first.size, len(columns))
    header = max(label.count("\n") + 1 for label in columns) * _LINE_PX + _LINE_PX + 3 * _GAP_PX
    count = max(1, (HIGHEST - header) // (height + _GAP_PX))
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        yield _sheet(cells[part], rows[part], columns, note, (width, height), header)


def _cell(size: tuple[int, int], columns: int) -> tuple[int, int]:
    """Width and height of a cell: small pictures are enlarged by a whole factor, large ones shrunk."""
    longest = max(size)
    room = max(_LEAST_PX, (WIDEST - _LABEL_PX) // columns - _GAP_PX)
    factor = min(max(1, _SMALLEST_PX // longest), _LARGEST_PX / longest, room / size[0])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _sheet(
    cells: Sequence[Sequence[Path]],
    rows: Sequence[str],
    columns: Sequence[str],
    note: str,
    cell: tuple[int, int],
    header: int,
) -> Image.Image:
    from PIL import Image, ImageDraw

    width, height = cell
    size = (
        _LABEL_PX + len(columns) * (width + _GAP_PX) + _GAP_PX,
        header + len(rows) * (height + _GAP_PX) + _GAP_PX,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    draw.text((_GAP_PX, _GAP_PX), _cut(one_line(note), size[0] - 2 * _GAP_PX, font), _FAINT, font)
    for n, label in enumerate(columns):
        left = _LABEL_PX + n * (width + _GAP_PX)
        for k, line in enumerate(label.split("\n")):
            top = 2 * _GAP_PX + _LINE_PX * (k + 1)
            draw.text((left, top), _cut(one_line(line), width, font), _INK, font)
    for r, (label, files) in enumerate(zip(rows, cells, strict=True)):
        top = header + r * (height + _GAP_PX)
        for k, line in enumerate(_wrapped(label, font)[: max(1, height // _LINE_PX)]):
            draw.text((_GAP_PX, top + k * _LINE_PX), line, _INK, font)
        for c, file in enumerate(files):
            sheet.paste(_read(file, cell), (_LABEL_PX + c * (width + _GAP_PX), top))
    return sheet


def _read(file: Path, cell: tuple[int, int]) -> Image.Image:
    from PIL import Image

    with Image.open(file) as picture:
        larger = cell[0] >= picture.width
        how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
        return picture.convert("RGB").resize(cell, how)


def _font() -> FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along; it has Latin, Greek, Cyrillic and more."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _FONT_PX
    )


def _cut(text: str, width: float, font: FreeTypeFont) -> str:
    """A text that is no wider than ``width`` pixels."""
    text = text[:500]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, font: FreeTypeFont) -> list[str]:
    """The lines of a label; of a text without spaces, cut ones."""
    room, lines = _LABEL_PX - 2 * _GAP_PX, [""]
    for part in text[:1000].split("\n"):
        for word in one_line(part).split():
            joined = f"{lines[-1]} {word}".strip()
            if font.getlength(joined) <= room:
                lines[-1] = joined
            else:
                lines.append(_cut(word, room, font))
        lines.append("")
    return [line for line in lines if line]
