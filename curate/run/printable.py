"""Text of foreign data that is safe to print: it moves no cursor, colours no screen and turns no line around."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

_JOINER = "\u200d"  # within emoji


def is_hidden(character: str) -> bool:
    """Whether a character is none that one sees: a control, a change of direction, a lone surrogate, a line's end.

    These are Unicode's categories Cc, Cf, Cs, Zl and Zp, but for the joiner within emoji.
    """
    return character != _JOINER and unicodedata.category(character) in (
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    )


def printable(text: str, kept: str = "\n\t") -> str:
    r"""``text`` with hidden characters written as escapes, except those in ``kept``.

    >>> printable("a\x1b[2Jb\u202ec\n")
    'a\\x1b[2Jb\\u202ec\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c not in kept and is_hidden(c) else c for c in text
    )


def one_line(text: str) -> str:
    r"""``text`` as one line, with hidden characters written as escapes.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return printable(text, kept="")


def spreadsheet_cell(text: str) -> str:
    r"""``text`` as the cell of a table, in one line: an apostrophe is before what a spreadsheet would compute.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("a\nb")
    ("'=1+1", 'a\\nb')
    """
    shown = one_line(text)
    return f"'{shown}" if _is_formula(shown) else shown


def from_spreadsheet_cell(cell: str) -> str:
    """What `spreadsheet_cell` was given, if it was one line.

    >>> from_spreadsheet_cell("'=1+1"), from_spreadsheet_cell("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    return text.lstrip().startswith(("=", "+", "-", "@"))


class PrintableStream:
    """A text stream that writes ``printable`` text; all else is the stream's own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``, and return its length."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Print nothing but ``printable`` text to standard output, whoever prints.

    Standard error stays as it is, because progress bars move the cursor there; what is written to it from foreign
    data goes through ``printable`` first.
    """
    before = sys.stdout
    sys.stdout = PrintableStream(before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = before
