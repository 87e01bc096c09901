"""What parts the fields of a ``.csv``: a comma, or what a spreadsheet wrote where that is the decimal point."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

_SAID = re.compile(r"sep=(.)\s*")  # Excel's own first line
_QUOTED = re.compile(r'"[^"]*"')


def told(lines: Iterable[str]) -> tuple[Iterator[str], str]:
    """The same lines, and their delimiter, by the first that is not blank.

    A line ``sep=;`` says it, and is blank in what is returned. Else it is a semicolon where one stands
    outside quotes and no comma does; a quote that goes on in the next line leaves it open: a comma.
    """
    lines = iter(lines)
    start: list[str] = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    first = start[-1] if start else ""
    if said := _SAID.fullmatch(first):
        return chain([*start[:-1], "\n"], lines), said[1]
    bare = _QUOTED.sub("", first)
    semicolons = ";" in bare and "," not in bare and '"' not in bare
    return chain(start, lines), ";" if semicolons else ","
