"""WebDataset tars as they lie: which member of which sample is where, without reading a body."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.command import UserError
from curate.images import CANNOT_BE_READ, MISSING_FILE, UnreadableImage
from curate.readers.sidecars import CAPTION_SUFFIXES, IMAGE_SUFFIXES
from curate.readers.what_is import what_is

TEXT_SUFFIXES = (*CAPTION_SUFFIXES, ".json")

Members = dict[str, tuple[int, int]]
"""Extension of each member, without the first dot and in lower case, to its (offset, size) in bytes."""


class BrokenTar(Exception):
    """A tar ends before its end; whatever was whole has been given before."""


class MoreFollows(BrokenTar):
    """The tar itself is whole, but the file goes on after it."""


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
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        what = what_is(head)
        advice = "mend it or leave it out"
        if what.startswith("compressed"):
            advice = "unpack it (gunzip, unxz, ...), random access needs a plain tar"
        raise UserError(f"{path} is {what or 'no tar'}; {advice}") from error


def iter_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """The samples of one tar in its order, read from its headers alone.

    As webdataset has it a key ends at the first dot of the base name and keeps its folder, so that
    ``a.b/c.d.jpg`` has the key ``a.b/c`` and the extension ``d.jpg``. Whatever is no plain file, hidden,
    named ``__*__`` or without an extension belongs to no sample. Tars that were appended to one another
    may hold a key twice: the second whole sample of ``c`` has the key ``c.2``, which no member's name makes.

    Raises:
        UserError: no tar, or the members of a sample are not adjacent; names the file.
        BrokenTar: at the end, of a tar that was cut off or damaged. The sample that the damage is in
            was not given; all before it were.
    """
    check_tar(path)
    times: dict[int, int] = {}
    parts: set[int] = set()
    for key, members in _adjacent(path):
        known = hash(key)  # in place of long names
        earlier = times.get(known, 0)
        if not _is_whole(members):
            parts.add(known)
        if earlier and known in parts:
            raise UserError(
                f"{path}: the members of sample {key!r} are not adjacent, or one of them comes twice; "
                "pack it again with: tar --sort=name"
            )
        times[known] = earlier + 1
        yield f"{key}.{earlier + 1}" if earlier else key, members


def is_repetition(key: str) -> bool:
    """Whether `iter_samples` gave a sample this key because another has its own."""
    return "." in key.rpartition("/")[2]


def _adjacent(path: Path) -> Iterator[tuple[str, Members]]:
    """Neighbours of one key, each extension once."""
    key, members = "", Members()
    length = path.stat().st_size
    follows: MoreFollows | None = None
    try:
        for name, offset, size in _files(path):
            new, extension = _split(name)
            if not extension:
                continue
            if members and (new != key or extension in members):
                yield key, members
                members = {}
            key = new
            if offset + size > length:
                raise BrokenTar(f"cut off within {name}")
            members[extension] = (offset, size)
    except MoreFollows as error:
        follows = error
    if members:
        yield key, members
    if follows:
        raise follows


def _is_whole(members: Members) -> bool:
    kinds = {f".{extension.rpartition('.')[2]}" for extension in members}
    return not kinds.isdisjoint(IMAGE_SUFFIXES) and not kinds.isdisjoint(TEXT_SUFFIXES)


def _split(name: str) -> tuple[str, str]:
    """Key and extension of a member; an empty extension where it belongs to no sample."""
    folder, _, base = f"/{name}".replace("/./", "/").rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or (stem.startswith("__") and base.endswith("__")):
        return "", ""
    return f"{folder}/{stem}".lstrip("/"), extension.lower()


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each plain file, as its header says."""
    with _damage():
        opened = tarfile.open(path, "r:")  # noqa: SIM115 (which reads the first header)
    with opened as tar:
        while member := _next(tar):
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (or it keeps them all)
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size
        _check_end(path, tar.offset)


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


def _check_end(path: Path, offset: int) -> None:
    """After the last member stand zeros, and nothing else; a tar that merely lacks them is whole."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise BrokenTar(f"damaged at byte {offset}")
        while block := stream.read(tarfile.RECORDSIZE):
            if block.strip(b"\0"):  # as cat leaves them
                raise MoreFollows(
                    f"at byte {offset}, where another tar may begin; join them with tar --concatenate"
                )


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
