"""The lines of a table's text file, in whatever encoding it is."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from curate.readers.counted_notes import CountedNotes
from curate.readers.tables.files import TableFile, open_text, wide_encoding
from curate.readers.text_encoding import TextDecoder

_MARK = "\ufeff"  # joined files have byte order marks in the middle


@contextmanager
def lines(table: TableFile, encoding: str | None, notes: CountedNotes) -> Iterator[Iterator[str]]:
    """The lines with their ends, without byte order marks at their start, one in memory at a time.

    UTF-16 and UTF-32 are known by their zeros or their mark. A line that is not UTF-8 is read in
    ``encoding``, or if that is None in the one that fits such lines of the file; where none does it has
    U+FFFD for what cannot be decoded. Both are noted.
    """
    wide = wide_encoding(table)
    with open_text(table) as stream:
        if wide:
            text = io.TextIOWrapper(stream, wide, errors="replace", newline="\n")  # pyright: ignore[reportArgumentType]
            yield _noted(text, table, notes)
        else:
            yield _decoded(stream, table, encoding, notes)


def _noted(read: Iterable[str], table: TableFile, notes: CountedNotes) -> Iterator[str]:
    for number, line in enumerate(read, start=1):
        if "\ufffd" in line:
            _note_damage(table, number, notes)
        yield line.lstrip(_MARK)


def _decoded(
    stream: Iterable[bytes], table: TableFile, encoding: str | None, notes: CountedNotes
) -> Iterator[str]:
    decoder = TextDecoder(encoding, lambda: _raw_lines(table))
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            found = decoder.decode(line)
            text = found.text
            if found.encoding:
                what = f"lines that are not UTF-8, read as {found.encoding}"
                notes.add(what, f"{table.path.name}:{number}")
            else:
                _note_damage(table, number, notes)
        yield text.lstrip(_MARK)


def _raw_lines(table: TableFile) -> Iterator[bytes]:
    with open_text(table) as stream:
        yield from stream


def _note_damage(table: TableFile, number: int, notes: CountedNotes) -> None:
    what = "lines that are not UTF-8, with \ufffd for what cannot be decoded"
    notes.add(what, f"{table.path.name}:{number}")
