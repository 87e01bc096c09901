"""The files that a retraining is made from: listed by size, times and inode; hashed where these differ.

Nothing but the standard library and ``curate.run.files``, which needs no more: a start that finds nothing to do
has to be over in two seconds.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from curate.run.files import atomic_write

_SKIPPED = "__pycache__"  # and whatever is hidden, which no reader takes
_NOT_THERE = (errno.ENOENT, errno.ELOOP)  # a dangling link, one to itself, or deleted meanwhile
_THREADS = min(8, os.cpu_count() or 1)

Stat = tuple[int, int, int, int]
"""Size, mtime_ns, ctime_ns, inode."""


@dataclass(frozen=True, slots=True)
class Root:
    """A file, or a folder with all that is below it.

    Attributes:
        kind: of the input, as ``record.Change.kind``.
        path: absolute, as it is named: a link in it may lead elsewhere later.
        label: how a person calls it, such as the setting that names it.
        suffixes: of the files that count; () are all.
        pattern: ``path`` is one, with ``*`` and the like; new files may match it later.
    """

    kind: str
    path: str
    label: str
    suffixes: tuple[str, ...] = ()
    pattern: bool = False

    def paths(self) -> list[str]:
        """What is there now."""
        return sorted(glob.glob(self.path, recursive=True)) if self.pattern else [self.path]  # noqa: PTH207


def listed(roots: Iterable[Root], without: str = "") -> dict[tuple[str, str], Stat]:
    """Every file below the roots, by kind and path.

    Args:
        roots: where to look.
        without: a folder that is passed over where it lies inside a root, such as that of the runs.

    Raises:
        OSError: a folder cannot be read.
    """
    found: dict[tuple[str, str], Stat] = {}
    passed_over = _identity(without) if without else None
    for root in roots:
        for path in root.paths():
            for name, known in _walk(path, passed_over):
                if not root.suffixes or name.endswith(root.suffixes):
                    found[root.kind, name] = known
    return found


def _identity(path: str) -> tuple[int, int] | None:
    """Of a folder, however it is called; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def digest(files: Mapping[tuple[str, str], Stat]) -> str:
    """Changes with any file's place, size, times or inode."""
    lines = (f"{kind}\0{path}\0{known}" for (kind, path), known in sorted(files.items()))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _walk(path: str, without: tuple[int, int] | None) -> Iterator[tuple[str, Stat]]:
    """A file, or the files below a folder; links are followed, but never in a circle."""
    folders, seen = [path], {without}
    if not os.path.isdir(path):  # noqa: PTH112 (Path is three times slower)
        if os.path.exists(path):  # noqa: PTH110
            yield path, _stat(os.stat(path))  # noqa: PTH116
        return
    while folders:
        folder = folders.pop()
        there = os.stat(folder)  # noqa: PTH116
        if (there.st_dev, there.st_ino) in seen:
            continue
        seen.add((there.st_dev, there.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == _SKIPPED:
                    continue
                try:
                    if entry.is_dir():
                        folders.append(entry.path)
                    else:
                        yield entry.path, _stat(entry.stat())
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        raise


def _stat(found: os.stat_result) -> Stat:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@dataclass(frozen=True, slots=True)
class Listing:
    """Files with their stats and content hashes, by kind and path.

    Those without a hash are there, but nothing is made from them: only the quick look sees that they change.
    """

    stats: dict[tuple[str, str], Stat]
    hashes: dict[tuple[str, str], str]

    def content(self) -> str:
        """Digest of all paths and contents."""
        lines = (f"{kind}\0{path}\0{sha}" for (kind, path), sha in sorted(self.hashes.items()))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def save(self, path: Path) -> None:
        """Write as lines of kind, size, mtime, ctime, inode, sha256 and path, divided by tabs."""
        lines = [
            "\t".join([kind, *map(str, stat), self.hashes.get((kind, name), ""), _escaped(name)])
            for (kind, name), stat in sorted(self.stats.items())
        ]
        text = "".join(f"{line}\n" for line in lines)
        with atomic_write(path) as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))

    @classmethod
    def load(cls, path: Path) -> Listing | None:
        """What :meth:`save` wrote; None where that is missing or damaged."""
        stats: dict[tuple[str, str], Stat] = {}
        hashes: dict[tuple[str, str], str] = {}
        try:
            for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]:
                kind, size, mtime, ctime, inode, sha, name = line.split("\t", 6)
                place = kind, _unescaped(name)
                stats[place] = int(size), int(mtime), int(ctime), int(inode)
                hashes |= {place: sha} if sha else {}
        except (OSError, ValueError):
            return None
        return cls(stats, hashes)


def _escaped(name: str) -> str:
    return (
        name.encode("unicode_escape", "surrogatepass").decode()
        if not name.isprintable() or "\\" in name
        else name
    )


def _unescaped(name: str) -> str:
    return (
        name.encode("ascii", "backslashreplace").decode("unicode_escape") if "\\" in name else name
    )


def hashed(
    stats: dict[tuple[str, str], Stat],
    before: Listing | None,
    watched: Callable[[Iterable[str], int], Iterable[str]] = lambda paths, _: paths,
    unused: Collection[tuple[str, str]] = (),
) -> Listing:
    """The same files with their content hashes.

    Args:
        stats: see :func:`listed`.
        before: an earlier listing; files whose stats equal its keep its hash. None hashes all.
        watched: passes the hashes through and shows progress, given how many there will be.
        unused: files that nothing is made from, which are not read.
    """
    known = before or Listing({}, {})
    used = {place: stat for place, stat in stats.items() if place not in unused}
    found = {
        place: known.hashes[place]
        for place, stat in used.items()
        if known.stats.get(place) == stat and place in known.hashes
    }
    unknown = [place for place in used if place not in found]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = watched(pool.map(_sha256, (path for _, path in unknown)), len(unknown))
        found |= {place: sha for place, sha in zip(unknown, hashes, strict=True) if sha}
    gone = used.keys() - found.keys()
    return Listing({place: stat for place, stat in stats.items() if place not in gone}, found)


def _sha256(path: str) -> str:
    """Of a file; "" where it is gone meanwhile."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
