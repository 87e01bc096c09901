"""The folders of a series' runs, found by their names: ``<name>-0001``, ``<name>-0002``, …

Only the standard library, see :mod:`unchanged`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_NUMBER = re.compile(r"[0-9]{4,}")


def folders(root: Path, series: str, end: str = "") -> dict[int, Path]:
    """By number, the earliest first; ``series`` may hold any sign, also those of patterns.

    Args:
        root: of all runs.
        series: the name before the number.
        end: of the folders' names, behind the number.
    """
    start = f"{series}-"
    found = {
        int(number): root / name
        for name in (os.listdir(root) if root.is_dir() else ())  # noqa: PTH208 (Path is slower)
        if name.startswith(start)
        and name.endswith(end)
        and _NUMBER.fullmatch(number := name.removeprefix(start).removesuffix(end))
    }
    return dict(sorted(found.items()))
