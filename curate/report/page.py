"""The layout of every report: one offline HTML file without scripts, safe against hostile captions.

Text from data enters the page only through :func:`clean` and jinja2's escaping; ``Markup`` is built
from constants only, here and by callers. The palette is Okabe and Ito's, which colour-blind readers
can distinguish; every status has a word beside its colour (WCAG 1.4.1).
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from curate.run.printable import is_hidden

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW)

_ICONS = {"good": "✓", "warn": "!", "bad": "✕", "info": "i"}
_SCALE = 0.8  # of a drawing's inches: pages fit drawings to their width, so its text stays legible on a phone
_MOST_SIDE_BY_SIDE = 4  # columns of a table on a phone
_PLOT_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.alpha": 0.14,
    "grid.color": "black",
    "grid.linewidth": 0.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "font.size": 11,
    "axes.titlesize": 11,
}


@dataclass(frozen=True, slots=True)
class Section:
    """One card of a page: its heading, the id that links point to, and its content."""

    title: str
    anchor: str
    body: Markup


@dataclass(frozen=True, slots=True)
class Page:
    """A report: its heading, one line below it, and its sections (at least one) in order."""

    title: str
    subtitle: str
    sections: Sequence[Section]


@dataclass(frozen=True, slots=True)
class Count:
    """A count and the Python expression on the ledger that computes it."""

    value: int
    expression: str

    def __html__(self) -> str:
        """The number; hovering over it shows the expression."""
        return Markup('<abbr title="{}">{}</abbr>').format(self.expression, f"{self.value:,}")


def render(page: Page) -> str:
    """The page as one self-contained HTML document."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(page=page)


def clean(text: str, limit: int = 200) -> str:
    """Text that is safe to show: no control or direction-changing characters, at most ``limit`` long.

    >>> clean("a\\u202eb\\x00c\\nd")
    'abc d'
    >>> clean("abcdef", limit=4)
    'abc…'
    """
    spaced = " ".join(text.split())
    shown = "".join(c for c in spaced if not is_hidden(c))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def sentence(text: str) -> str:
    """A message as a sentence: with a capital, and a full stop where it has no end.

    >>> sentence("held out: 8 images"), sentence("Why?")
    ('Held out: 8 images.', 'Why?')
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def quote(text: str, limit: int = 200) -> Markup:
    """A caption or other text from data: cleaned, escaped, its text direction isolated (``<bdi>``)."""
    return Markup("<bdi>{}</bdi>").format(clean(text, limit))


def paragraph(text: str | Markup, kind: str = "") -> Markup:
    """A paragraph; ``kind="note"`` is grey, ``kind="warning"`` has a coloured bar at its side."""
    return (
        Markup('<p class="{}">{}</p>').format(kind, text)
        if kind
        else Markup("<p>{}</p>").format(text)
    )


def heading(text: str) -> Markup:
    """A heading within a section."""
    return Markup("<h3>{}</h3>").format(clean(text))


def badge(kind: str, word: str) -> Markup:
    """A status: an icon and a word, coloured by ``kind`` (good, warn, bad, info)."""
    return Markup('<span class="badge {}">{} {}</span>').format(kind, _ICONS[kind], word)


def banner(kind: str, word: str, sentence: str | Markup) -> Markup:
    """The main message of a page, in large type."""
    return Markup('<div class="banner {}"><strong>{} {}</strong><p>{}</p></div>').format(
        kind, _ICONS[kind], word, sentence
    )


def tiles(items: Iterable[tuple[str | Count, str]]) -> Markup:
    """A row of large figures, each a (value, label)."""
    tile = Markup('<div class="tile"><b>{}</b><span>{}</span></div>')
    return Markup('<div class="tiles">{}</div>').format(
        Markup("").join(tile.format(value, label) for value, label in items)
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], stacked: bool | None = None
) -> Markup:
    """A table: numeric columns right-aligned, ``Markup`` cells as they are, other cells cleaned.

    A column is numeric if every cell is a number or a string that starts with one ("+1.2 %").

    Args:
        head: of the columns.
        rows: of cells.
        stacked: whether a phone shows the cells of a row below each other, each with its column's head; by
            default where there are more than four.
    """
    rows = [list(row) for row in rows]
    if stacked is None:
        stacked = len(head) > _MOST_SIDE_BY_SIDE
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    kinds = [Markup(' class="number"') if n else Markup("") for n in numeric]
    heads = (Markup("<th{}>{}</th>").format(k, h) for k, h in zip(kinds, head, strict=True))
    opened = [
        Markup('<td{} data-head="{}"><div>').format(kind, name)
        if stacked
        else Markup("<td{}>").format(kind)
        for kind, name in zip(kinds, head, strict=True)
    ]
    closed = Markup("</div></td>") if stacked else Markup("</td>")
    lines = (
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("{}{}{}").format(start, _cell(cell), closed)
                for start, cell in zip(opened, row, strict=True)
            )
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table{}><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(
        Markup(' class="stacked"') if stacked else "",
        Markup("").join(heads),
        Markup("\n").join(lines),
    )


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return not isinstance(cell, Markup) and bool(
            re.match(r"^$|^[-+−–]?[\d.,]+\s?%?( |$)", cell)
        )
    return isinstance(cell, int | float | Count) and not isinstance(cell, bool)


def _cell(cell: Any) -> Markup:
    if isinstance(cell, Markup | Count):
        return escape(cell)
    if isinstance(cell, float):
        return escape(number(cell))
    return escape(f"{cell:,}") if isinstance(cell, int) else escape(clean(str(cell), 400))


def number(value: float) -> str:
    """A number with three digits, or as a whole one where it has more before the point.

    >>> number(0.21783), number(12345.6)
    ('0.218', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def short_numbers(text: str) -> str:
    """A text, such as a reason, whose long decimal numbers have three digits.

    >>> short_numbers("clip_similarity < 0.21783401, 3.0 kept")
    'clip_similarity < 0.218, 3.0 kept'
    """
    return re.sub(r"(?<![\w.])\d+\.\d{4,}(?![\w.])", lambda found: number(float(found[0])), text)


def details(summary: str, body: Markup) -> Markup:
    """Content hidden until the reader opens it."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, body)


def figure(content: Markup | str, caption: str | Markup, alt: str) -> Markup:
    """A figure with its caption; ``content`` is markup (an SVG) or the data URI of an image."""
    alt = clean(alt)
    if isinstance(content, Markup):
        shown = Markup('<div role="img" aria-label="{}">{}</div>').format(alt, content)
    else:
        shown = Markup('<img src="{}" alt="{}">').format(content, alt)
    text = caption if isinstance(caption, Markup) else escape(clean(caption, 600))
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(shown, text)


def zoomed(uri: str, alt: str, anchor: str) -> Markup:
    """An image that fills the window when it is clicked, by links alone; a second link closes it.

    Args:
        uri: of the image, a data URI.
        alt: what it shows.
        anchor: an id that nothing else on the page has.
    """
    return Markup(
        '<div id="{0}-place"><figure class="zoom" id="{0}"><a href="#{0}"><img src="{1}" alt="{2}"></a>'
        '<figcaption>{2}</figcaption><a href="#{0}-place">Close</a></figure></div>'
    ).format(anchor, uri, clean(alt))


def sheet(figures: Iterable[Markup]) -> Markup:
    """Figures in a grid."""
    return Markup('<div class="sheet">{}</div>').format(Markup("\n").join(figures))


def thumbnail(image: Image, px: int) -> str:
    """An RGB image as a WebP data URI, its longer side at most ``px`` (it is never enlarged).

    Small thumbnails are stored losslessly: the page enlarges them, and would enlarge artefacts too.
    """
    small = image.copy()
    small.thumbnail((px, px))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80, method=6, lossless=max(small.size) <= 96)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def subplots(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """A figure of the shape ``width`` × ``height`` in the reports' style, and its axes.

    Like ``matplotlib.pyplot.subplots`` but without pyplot's global state; ``options`` go to
    ``Figure.subplots``.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**_PLOT_STYLE, "axes.prop_cycle": cycler(color=PALETTE)}
    with mpl.rc_context(style):
        drawing = Figure(figsize=(_SCALE * width, _SCALE * height), layout="constrained")
        return drawing, drawing.subplots(rows, columns, **options)


def svg(drawing: Figure) -> Markup:
    """A matplotlib figure as inline SVG: black and blue follow the page's theme, text stays text.

    The bytes depend only on the drawing. Ids contain a hash of it, so that two figures on a page
    never use each other's clip paths.
    """
    import matplotlib as mpl

    drawing.patch.set_visible(False)
    for axes in drawing.axes:
        axes.patch.set_visible(False)
        legend = axes.get_legend()
        if legend is not None:
            legend.set_frame_on(False)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "darkroom", "svg.fonttype": "none"}):
        drawing.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = text.replace(BLUE, "var(--accent)")  # too dark on a dark page
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    return Markup(text)  # matplotlib escapes every text it draws
