"""WebDataset tars as they lie: which member of which sample is where, without reading a body."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage
from curate.readers.sidecars import CAPTION_SUFFIXES, IMAGE_SUFFIXES
from curate.readers.what_is import what_is
from curate.run.cli import UserError

_TEXT_SUFFIXES = (*CAPTION_SUFFIXES, ".json")

Members = dict[str, tuple[int, int]]
"""Extension of each member, without the first dot and in lower case, to its (offset, size) in bytes."""


class BrokenTar(Exception):
    """A tar ends before its end; whatever was whole has been given before."""


def check_tar(path: Path) -> None:
    """Look at a file's first block.

    Raises:
        UserError: it is no tar; says what it is instead.
        FileNotFoundError: it is not there.
    """
    with path.open("rb") as stream:
        head = stream.read(tarfile.BLOCKSIZE)
    if head and not head.strip(b"\0"):  # an empty tar is one
        return
    if not _is_header(head):
        what = what_is(head)
        advice = "mend it or leave it out"
        if what.startswith("compressed"):
            advice = "unpack it (gunzip, unxz, ...), random access needs a plain tar"
        raise UserError(f"{path} is {what or 'no tar'}; {advice}")


def iter_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """The samples of one tar in its order, read from its headers alone.

    As webdataset has it a key ends at the first dot of the base name and keeps its folder, so that
    ``a.b/c.d.jpg`` has the key ``a.b/c`` and the extension ``d.jpg``. Whatever is no plain file, hidden,
    named ``__*__`` or without an extension belongs to no sample. A key may come again where both its
    samples are whole, as after ``tar --concatenate``; webdataset reads two samples then, too. Tars one
    after another in a file, as ``cat`` leaves them, are read to the last.

    Raises:
        UserError: no tar, or the members of a sample are not adjacent or come twice; names the file.
        BrokenTar: at the end, of a tar that was cut off or damaged. The sample that the damage is in
            was not given; all before it were.
    """
    check_tar(path)
    whole: dict[int, bool] = {}  # by the key's hash, for keys may be long
    for key, members in _adjacent(path):
        known, is_whole = hash(key), _is_whole(members)
        if known in whole and not (is_whole and whole[known]):
            raise UserError(
                f"{path}: the members of sample {key!r} are not adjacent; pack it again, each name "
                "once, with: tar --sort=name"
            )
        whole[known] = is_whole
        yield key, members


def _adjacent(path: Path) -> Iterator[tuple[str, Members]]:
    """Neighbours of one key."""
    key, members = "", Members()
    length = path.stat().st_size
    for name, offset, size in _files(path):
        new, extension = _split(name)
        if not extension:
            continue
        if new != key:
            if key:
                yield key, members
            key, members = new, {}
        if offset + size > length:
            raise BrokenTar(f"cut off within {name}")
        if extension in members:
            raise UserError(f"{path}: {name} comes twice; two samples share the key {key!r}")
        members[extension] = (offset, size)
    if key:
        yield key, members


def _is_whole(members: Members) -> bool:
    """Whether there is a picture of the sample's own, and a text: no mask, no ``0.jpg`` with a ``1.jpg``."""
    kinds = {f".{extension}" for extension in members}
    return not kinds.isdisjoint(IMAGE_SUFFIXES) and not kinds.isdisjoint(_TEXT_SUFFIXES)


def _split(name: str) -> tuple[str, str]:
    """Key and extension of a member; an empty extension where it belongs to no sample."""
    folder, _, base = f"/{name}".replace("/./", "/").rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or (stem.startswith("__") and base.endswith("__")):
        return "", ""
    return f"{folder}/{stem}".lstrip("/"), extension.lower()


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each plain file, as its header says."""
    with path.open("rb") as stream:
        start: int | None = 0
        while start is not None:
            stream.seek(start)
            with _damage():
                opened = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (reads a header)
            with opened as tar:
                while member := _next(tar):
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (it keeps all)
                    if member.isreg() and not member.issparse():
                        yield member.name, member.offset_data, member.size
            start = _after_end(stream, tar.offset)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _damage():
        member = tar.next()
    if member is not None and member.size < 0:  # the next header would be sought before this one
        raise BrokenTar(f"damaged, {member.name} has a negative size")
    return member


@contextmanager
def _damage() -> Iterator[None]:
    """What `tarfile` raises over headers: of its own, and whatever extended ones make its parsers raise."""
    try:
        yield
    except tarfile.TarError as error:
        raise BrokenTar(f"cut off ({error})") from error
    except (ValueError, IndexError, OverflowError, RecursionError) as error:
        raise BrokenTar(f"damaged, a header says what it cannot mean ({error})") from error


def _after_end(stream: IO[bytes], offset: int) -> int | None:
    """Where the next tar begins, if one follows the zeros at ``offset`` that end the last.

    A tar that merely lacks the zeros is whole.
    """
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise BrokenTar(f"damaged at byte {offset}")
    while block := stream.read(tarfile.BLOCKSIZE):
        if block.strip(b"\0"):
            return stream.tell() - tarfile.BLOCKSIZE if _is_header(block) else None
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def read_range(path: Path, offset: int, size: int) -> bytes:
    """The bytes of one member; safe in several threads.

    Raises:
        UnreadableImage: the tar is gone or shorter than it was.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
    except FileNotFoundError as error:
        raise UnreadableImage(MISSING_FILE) from error
    except OSError as error:
        raise UnreadableImage(f"{CANNOT_BE_READ} ({error.strerror})") from error
    if len(data) != size:
        raise UnreadableImage("truncated")
    return data
