"""The path by which a row names a file, and whether there is such a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from curate.readers.files import local_name


def named_file(root: Path, paths: Iterable[str]) -> str:
    """The first of ``paths`` under which there is a file below ``root``; "" for none."""
    for path in paths:
        if is_inside(path) and os.path.isfile(f"{root}/{path}"):  # noqa: PTH113 (four times as fast)
            return path
    return ""


def is_inside(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    leads_out = name.startswith("/") or (".." in name and ".." in Path(name).parts)
    return not leads_out and "\0" not in name


def local_path(root: Path, name: str) -> str:
    """A row's path, relative to ``root`` if it is below; ``./a.png`` becomes ``a.png``."""
    name = local_name(root, name)
    if not name.startswith("/") and "//" not in name and "." not in name.split("/"):
        return name
    if Path(name).is_relative_to(root.absolute()):
        name = Path(name).relative_to(root.absolute()).as_posix()
    return PurePosixPath(name).as_posix()
