"""Which tars a path stands for: a folder, a file, a glob, a brace range, or a list of them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import braceexpand

from curate.readers.sidecars import files_below
from curate.run.cli import UserError

_MAGIC = re.compile(r"[*?\[{]")


def find(given: str | Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The tars by name, in order, and notes on those of a brace range that are not there.

    A name is the path without ``.tar`` below the folder that was given, or below the part of a pattern
    that has no magic in it: it does not change when shards are added.

    Raises:
        FileNotFoundError: nothing is there under what was given.
        UserError: a folder without tars, two tars of one name, or a pattern that the shell took apart.
    """
    _check_shell()
    shards: dict[str, Path] = {}
    absent: list[str] = []
    for item in [given] if isinstance(given, str) else given:
        before = len(absent)
        paths = list(_expand(item, absent))
        if not paths:
            raise FileNotFoundError(
                f"dataset.path={item} is not there; type dataset.path=FOLDER, a .tar, or a pattern in "
                "quotes, such as 'dataset.path=\"data/{00000..00012}.tar\"'"
                + (f" (looked for {absent[before]})" if len(absent) > before else "")
            )
        base = _base(item)
        for path in paths:
            name = path.relative_to(base).with_suffix("").as_posix()
            if shards.setdefault(name, path) != path:
                raise UserError(
                    f"{shards[name]} and {path} are both called {name}; give the folder above them, "
                    "or a pattern such as 'dataset.path=\"data/*/*.tar\"'"
                )
    if not absent:
        return shards, []
    return shards, [f"shards of a range that are not there: {len(absent)}, such as {absent[0]}"]


def _check_shell() -> None:
    """Bash hands ``dataset.path={1..3}.tar`` over as three arguments, of which the last would count."""
    given = [a for a in sys.argv[1:] if a.lstrip("+").startswith("dataset.path=")]
    if len(given) > 1:
        raise UserError(
            f"dataset.path comes {len(given)} times; the shell has expanded the braces. Quote them: "
            "'dataset.path=\"data/{00000..00012}.tar\"'"
        )


def _expand(item: str, absent: list[str]) -> Iterator[Path]:
    path = Path(item)
    if path.is_dir():
        yield from _tars_below(path)
    elif path.is_file():
        yield path
    else:
        for pattern in _ranges(item):
            if re.search(r"[*?\[]", pattern):
                base = _base(pattern)
                found = base.glob(Path(pattern).relative_to(base).as_posix())
                yield from sorted(path for path in found if path.is_file())
            elif Path(pattern).is_file():
                yield Path(pattern)
            else:
                absent.append(pattern)


def _ranges(item: str) -> list[str]:
    try:
        return list(braceexpand(item))
    except ValueError as error:  # braceexpand's own error is one
        raise UserError(f"dataset.path={item}: a brace is not closed ({error})") from error


def _tars_below(folder: Path) -> list[Path]:
    files = sorted(files_below(folder))
    tars = [path for path in files if path.suffix == ".tar"]
    if not tars:
        kinds = Counter("".join(path.suffixes[-2:]) or "none" for path in files).most_common(5)
        found = ", ".join(kind for kind, _ in kinds) or "nothing"
        raise UserError(f"dataset.path={folder} holds no .tar, but {found}; give a folder of tars")
    return tars


def _base(item: str) -> Path:
    path = Path(item)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    parts = path.parts
    magic = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return Path(*parts[: min(magic, len(parts) - 1)])
