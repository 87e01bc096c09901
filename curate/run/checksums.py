"""``checksums.json``: size and SHA-256 of every file in a stage's folder, for ``python -m curate.verify``.

It is absent while files change, so it never describes what was there before: a killed command leaves
none. Readers do not need it, since the files that they read carry a checksum of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.run import cores, parquet, tracking
from curate.run.files import contradicts_itself, read_json, sha256_of, sha256_once, write_certified

FILE = "checksums.json"
VERSION = 1
# Folders whose files are checked, and made again, by who reads or writes them.
LEFT_OUT = ("cache", "sample", tracking.FOLDER, "tasks")
GROWING = ("metrics.jsonl",)  # files that get more lines: what was there stays as it was

_THREADS = min(8, cores.usable())
_ABOUT = "sha256 of each file; of a parquet file with darkroom.sha256 in its footer, that one"


@dataclass(frozen=True)
class Listed:
    """What a ``checksums.json`` says, by path relative to its folder.

    Attributes:
        files: ``bytes`` and ``sha256``. Of a file in ``GROWING`` that it began with.
        links: where symbolic links point.
    """

    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def read(folder: Path) -> Listed | None:
    """What was listed; None where nothing is, or what is there is damaged."""
    content = read_json(folder / FILE, sealed=True)
    if content is None or content.get("version") != VERSION:
        return None
    return Listed(content["files"], content["links"])


def withdraw(folder: Path) -> Listed:
    """Remove ``checksums.json``, before files change; returns what it said."""
    listed = read(folder) or Listed()
    (folder / FILE).unlink(missing_ok=True)
    return listed


def forget(folder: Path, names: Collection[str]) -> None:
    """Take files out of ``checksums.json``, before they are deleted. Without a sound one nothing happens."""
    _leave_out(folder, lambda name: name in names)


def forget_below(folder: Path, inner: str) -> None:
    """As ``forget`` for all files of a folder inside, before they change; several processes may do so at once."""
    _leave_out(folder, lambda name: name.startswith(f"{inner}/"))


def _leave_out(folder: Path, leaves: Callable[[str], bool]) -> None:
    content = read_json(folder / FILE, sealed=True)
    if content is None:
        return
    left = {name: entry for name, entry in content["files"].items() if not leaves(name)}
    if len(left) < len(content["files"]):
        write_certified(folder / FILE, {**content, "files": left})


@contextmanager
def updated(
    folder: Path, changes: Sequence[str], known: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Withdraw ``checksums.json`` for a block that changes files, and write it afterwards.

    Args:
        folder: of a stage.
        changes: paths, or what they begin with. What is listed of other files stays, unread, so that
            damage done to them meanwhile does not become right. The block may add to a list.
        known: hashes of changed files that need not be computed again; the block may add to them.
    """
    listed = withdraw(folder)
    yield
    write(folder, listed, changes, known)


def write(
    folder: Path,
    before: Listed | None = None,
    changes: Sequence[str] = ("",),
    known: Mapping[str, str] | None = None,
) -> None:
    """Write ``checksums.json``; see ``updated``. By default everything has changed."""
    old = {} if before is None else before.files
    kept = {name: entry for name, entry in old.items() if not name.startswith(tuple(changes))}

    of_parts = _nested(folder)

    def entry(name: str) -> Mapping[str, Any]:
        path = folder / name
        return (
            kept.get(name)
            or of_parts.get(name)
            or {
                "bytes": path.stat().st_size,
                "sha256": (known or {}).get(name) or _stated(path) or sha256_of(path),
            }
        )

    files, links = _present(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = dict(zip(files, pool.map(entry, files), strict=True))
    content = {"version": VERSION, "about": _ABOUT, "files": entries, "links": links}
    write_certified(folder / FILE, content)


def _nested(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What the ``checksums.json`` of folders inside say, such as a checkpoint's."""
    found: dict[str, Mapping[str, Any]] = {}
    for inner in folder.rglob(f"*/{FILE}"):
        listed, inside = read(inner.parent) or Listed(), inner.parent.relative_to(folder)
        found |= {(inside / name).as_posix(): entry for name, entry in listed.files.items()}
    return found


def _stated(path: Path) -> str | None:
    return parquet.checksum_in(path) if path.suffix == ".parquet" else None


def _present(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The files of a stage, and its links, but for hidden ones."""
    files, links = [], {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or inside.parts[0] in LEFT_OUT or inside == Path(FILE):
            continue
        if path.is_symlink():
            links[inside.as_posix()] = str(path.readlink())
        elif path.is_file():
            files.append(inside.as_posix())
    return files, links


def damaged(folder: Path, within: Sequence[str] = ("",)) -> list[str]:
    """The listed files, of those whose path begins so, that are missing or not what is listed.

    None where nothing is listed; a damaged ``checksums.json`` itself.
    """
    if (listed := read(folder)) is None:
        return [FILE] if (folder / FILE).exists() else []
    names = [name for name in listed.files if name.startswith(tuple(within))]
    return [name for name, _ in _differences(folder, listed, names)]


def is_intact(folder: Path, name: str) -> bool:
    """Whether a file is there and as it is listed, or nothing is listed; it is read once in a process."""
    path = folder / name
    if not path.is_file():
        return False
    if (listed := read(folder)) is None:
        return not (folder / FILE).exists()
    return name in listed.files and sha256_once(path) == listed.files[name]["sha256"]


def problems(folder: Path, hashed: Collection[str] = ()) -> Iterator[str]:
    """One line for each file that is not what is listed.

    Args:
        folder: of a stage that has a ``checksums.json``.
        hashed: files that somebody else compares.
    """
    listed = read(folder)
    if listed is None:
        yield f"{FILE}: damaged, so the other files cannot be checked against it"
        return
    names = [name for name in listed.files if name not in hashed]
    for name, problem in _differences(folder, listed, names):
        yield f"{name}: {problem}"
    for name, target in listed.links.items():
        path = folder / name
        if not path.is_symlink():
            yield f"{name}: missing"
        elif str(path.readlink()) != target:
            yield f"{name}: points to {path.readlink()}, and {FILE} says {target}"


def unlisted(folder: Path) -> list[str]:
    """Files that are not in ``checksums.json``; all where there is none."""
    listed = read(folder) or Listed()
    return [name for name in _present(folder)[0] if name not in listed.files]


def self_contradicting(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """One line for each of these files that carries a checksum of its own and contradicts it."""
    for name in names:
        path = folder / name
        bad_table = path.suffix == ".parquet" and not parquet.is_intact(path)
        if bad_table or (path.suffix == ".json" and contradicts_itself(path)):
            yield f"{name}: damaged"


def _differences(folder: Path, listed: Listed, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _difference(folder / name, listed.files[name]), names)
        yield from ((name, problem) for name, problem in zip(names, found, strict=True) if problem)


def _difference(path: Path, entry: Mapping[str, Any]) -> str:
    if not path.is_file():
        return "missing"
    size, wanted = path.stat().st_size, entry["bytes"]
    if size < wanted or (size > wanted and path.name not in GROWING):
        return f"{size} bytes, and {FILE} says {wanted}"
    if path.name in GROWING:
        found = {hashlib.sha256(path.read_bytes()[:wanted]).hexdigest()}
    elif path.suffix == ".parquet":
        found = set(parquet.digest_of(path)) - {None}
    else:
        found = {sha256_of(path)}
    return "" if found == {entry["sha256"]} else "damaged: its sha256 is another"
