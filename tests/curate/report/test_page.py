"""Reports stay inert with any caption, and the same content gives the same bytes."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup
from PIL import Image

from curate.report import page

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """Every element that a browser would create, with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def drawing(label: str = "val") -> Markup:
    figure, axes = page.subplots(8, 4)
    axes.plot([0, 1, 2], [1, 0, 5], label=label)
    axes.set_xlim(0, 1)  # the line is clipped, which gives the SVG a clip path with an id
    axes.legend()
    return page.svg(figure)


def whole(text: str) -> str:
    body = Markup("").join(
        [
            page.banner("bad", text, text),
            page.tiles([(text, text)]),
            page.table([text], [[text], [page.quote(text)]]),
            page.figure(page.thumbnail(Image.new("RGB", (9, 9)), 9), text, text),
            page.figure(drawing(text), page.quote(text), text),
            page.details(text, page.paragraph(text, "note")),
            page.sheet([page.figure("data:,", text, text)]),
        ]
    )
    return page.render(page.Page(text, text, [page.Section(text, "only", body)]))


def test_hostile_text_makes_no_element_and_no_handler() -> None:
    harmless, hostile = Elements(whole("a caption")), Elements(whole(HOSTILE))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in harmless.found]
    assert not any(name.startswith("on") for _, attrs in hostile.found for name in attrs)
    sources = [attrs["src"] for tag, attrs in hostile.found if tag == "img"]
    assert sources
    assert all(source and source.startswith("data:") for source in sources)


def test_page_needs_nothing_from_outside() -> None:
    html = whole("a caption")
    elements = Elements(html).found
    assert "script" not in {tag for tag, _ in elements}
    policy = next(a["content"] for _, a in elements if "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    references = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', html)
    assert all((a or b).startswith(("#", "data:")) for a, b in references)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n lines\tand a tab", "two lines and a tab"),
        ("bell\x07 and c1 \x85here", "bell and c1 here"),
        ("evil \u202etxt.exe\u2066", "evil txt.exe"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("x" * 201, "x" * 199 + "…"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert page.clean(text) == shown


def test_numbers_are_right_aligned_and_words_left() -> None:
    cells = page.table(["rule", "pairs", "share"], [["clip", 1200, "−1.5 %"], ["size", 3, ""]])
    assert '<td>clip</td><td class="number">1,200</td><td class="number">−1.5 %</td>' in cells


def test_svg_bytes_are_reproducible_and_ids_unique() -> None:
    one, again, other = drawing(), drawing(), drawing("probe")
    assert one == again
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, other)]
    assert all(ids)
    assert ids[0].isdisjoint(ids[1])
    targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', one))
    assert targets
    assert targets <= ids[0]
    assert "currentColor" in one
    assert "#000000" not in one


def test_thumbnail_limits_the_longer_side_and_never_enlarges() -> None:
    import base64
    import io

    def size(image: Image.Image, px: int) -> tuple[int, int]:
        data = base64.b64decode(page.thumbnail(image, px).split(",")[1])
        return Image.open(io.BytesIO(data)).size

    assert size(Image.new("RGB", (400, 200)), 100) == (100, 50)
    assert size(Image.new("RGB", (40, 20)), 100) == (40, 20)


def test_numbers_have_three_digits():
    cells = page.table(["a"], [[0.217834], [1234567.8], [2.0]])
    assert [f">{shown}<" in cells for shown in ("0.218", "1,234,568", "2")] == [True] * 3
    assert page.short_numbers("similarity < 0.21783401") == "similarity < 0.218"
    assert page.short_numbers("of 1.2.34567 in a0.123456") == "of 1.2.34567 in a0.123456"


def test_a_wide_table_names_the_column_in_every_cell():
    """A phone shows its rows as blocks; heads are escaped like everything else."""
    narrow = page.table(["a", "b"], [[1, 2]])
    assert "data-head" not in narrow
    wide = page.table(['"x', "b", "c", "d", "e"], [[1, "", 3, 4, 5]])
    assert 'class="stacked"' in wide
    assert '<td class="number" data-head="&#34;x"><div>1</div></td>' in wide
    assert "data-head" in page.table(["a", "b"], [[1, 2]], stacked=True)
