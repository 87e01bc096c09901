"""Expand ``dataset.path`` into tars: a folder, a file, a glob, a brace range, or a list of them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from curate.readers.files import TAR_SUFFIXES, files_below
from curate.run.remote import base_of, check, is_remote
from curate.run.remote_files import RemotePath, found, relative
from curate.run.schema import UserError

_PATTERN = re.compile(r"[*?\[{]")


def expand(given: str | Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The tars by name, in order, and a note on those of a brace range that are missing.

    A name is the path without ``.tar``, ``.tar.gz`` or the like, relative to the given folder or to the part
    of a pattern before its first special character: it does not change when shards are added.

    Raises:
        FileNotFoundError: nothing matches.
        UserError: a folder without tars, two tars of one name, or a pattern that the shell expanded.
    """
    _check_shell()
    shards: dict[str, Any] = {}
    absent: list[str] = []
    for item in [given] if isinstance(given, str) else given:
        before = len(absent)
        named = _named_elsewhere(item, absent) if is_remote(item) else _named(item, absent)
        if not named:
            raise FileNotFoundError(
                f"dataset.path={item} was not found; type dataset.path=FOLDER, a .tar, or a pattern in "
                "quotes, such as 'dataset.path=\"data/{00000..00012}.tar\"'"
                + (f" (looked for {absent[before]})" if len(absent) > before else "")
            )
        for name, path in named:
            if shards.setdefault(name, path) != path:
                raise UserError(
                    f"{shards[name]} and {path} are both called {name}; remove one of them, "
                    "use the folder above them, or a pattern such as 'dataset.path=\"data/*/*.tar\"'"
                )
    if not absent:
        return shards, []
    return shards, [f"missing shards of a range: {len(absent)}, such as {absent[0]}"]


def _named(item: str, absent: list[str]) -> list[tuple[str, Path]]:
    """The tars that a path or pattern names, with their names."""
    base = _base(item)
    paths = _expand(item, absent)
    return [(stem_of(path.relative_to(base)).as_posix(), path) for path in paths]


def _elsewhere(item: str, absent: list[str]) -> list[RemotePath]:
    """The plain tars of a URL: one, all below a prefix, or the matches of a glob or a brace range."""
    check("dataset.path", item)
    if "{" not in item:
        files = found("dataset.path", item)
    else:  # one listing, instead of a question for each
        listed = {str(path): path for path in found("dataset.path", base_of(item))}
        files = [listed[url] for url in _ranges(item) if url in listed]
        absent += [url for url in _ranges(item) if url not in listed]
    tars = [path for path in files if path.suffix.lower() == ".tar"]
    if files and not tars:
        raise UserError(
            f"dataset.path={item} holds no .tar, but {files[0].name}; only plain tars are read from elsewhere"
        )
    return tars


def _named_elsewhere(item: str, absent: list[str]) -> list[tuple[str, RemotePath]]:
    """Those of a URL, with their names."""
    paths = _elsewhere(item, absent)
    names = relative(paths, base_of(item)) if paths else []
    return [(name.removesuffix(".tar"), path) for name, path in zip(names, paths, strict=True)]


def _check_shell() -> None:
    """Refuse several ``dataset.path=``: bash makes three of ``{1..3}.tar``, and Hydra would take the last."""
    given = [a for a in sys.argv[1:] if a.lstrip("+").startswith("dataset.path=")]
    if len(given) > 1:
        raise UserError(
            f"dataset.path is given {len(given)} times: the shell expanded the braces. Quote them: "
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
    from braceexpand import braceexpand

    try:
        return list(braceexpand(item))
    except ValueError as error:  # braceexpand's own error is one
        raise UserError(f"dataset.path={item}: a brace is not closed ({error})") from error


def _tars_below(folder: Path) -> list[Path]:
    files = sorted(files_below(folder))
    tars = [path for path in files if path.name.lower().endswith(TAR_SUFFIXES)]
    if not tars:
        kinds = Counter("".join(path.suffixes[-2:]) or "none" for path in files).most_common(5)
        found = ", ".join(kind for kind, _ in kinds) or "nothing"
        raise UserError(f"dataset.path={folder} holds no .tar, but {found}; use a folder of tars")
    return tars


def stem_of(path: Path) -> Path:
    """The path without the suffix of a tar; without its last suffix if that is another."""
    suffix = next(
        (suffix for suffix in TAR_SUFFIXES if path.name.lower().endswith(suffix)), path.suffix
    )
    return path.with_name(
        path.name.removesuffix(path.name[-len(suffix) :]) if suffix else path.name
    )


def list_beside(path: Path) -> Path:
    """img2dataset's list of the pairs of a tar, which may not be there."""
    if isinstance(path, RemotePath):
        return path.with_suffix(".parquet")
    stem = stem_of(path)
    return stem.with_name(f"{stem.name}.parquet")


def _base(item: str) -> Path:
    """The folder that names are relative to."""
    path = Path(item)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if _PATTERN.search(part)), len(parts))
    return Path(*parts[: min(first, len(parts) - 1)])
