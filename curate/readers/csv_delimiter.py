"""How a ``.csv`` file is read: by a comma, or the semicolon or tab that some spreadsheets write, with long fields."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain

csv.field_size_limit(1 << 26)  # of characters; by default 131,072, fewer than some captions have
_SEP_LINE = re.compile(r"sep=(.)\s*")  # as Excel writes and reads it
_QUOTED = re.compile(r'"[^"]*"')


def detect_delimiter(lines: Iterable[str]) -> tuple[Iterator[str], str]:
    """The same lines, and their delimiter, found in the first line that is not blank.

    After a line ``sep=;`` it is that character, and the line is returned blank. Otherwise it is a
    semicolon or tab if one is outside quotes and no comma is; a comma if that line ends inside quotes.
    """
    lines = iter(lines)
    start: list[str] = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    first = start[-1] if start else ""
    if sep_line := _SEP_LINE.fullmatch(first):
        return chain([*start[:-1], "\n"], lines), sep_line[1]
    bare = _QUOTED.sub("", first)
    sound = "," not in bare and '"' not in bare
    others = (mark for mark in ";\t" if sound and mark in bare)
    return chain(start, lines), next(others, ",")
