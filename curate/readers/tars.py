"""Index WebDataset tars: the offset and size of each sample's members, read from the headers alone.

Hard and symbolic links to a member of the same tar have that member's bytes. A picture that is another link has
the size ``LINK``: nothing outside the tar is ever read.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import IO

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage
from curate.readers.file_signature import identify
from curate.readers.files import CAPTION_SUFFIXES, IMAGE_SUFFIXES
from curate.run.remote_files import RemotePath, refusal
from curate.run.schema import UserError

LINK = -1
"""The size of a member that is a link out of its tar, or to nothing."""

_ASK_S = 60.0  # how often a tar elsewhere is asked whether it is the same
_TEXT_SUFFIXES = (*CAPTION_SUFFIXES, ".json")
_LINKED = "a link in a tar, to a file that is not in it"

Members = dict[str, tuple[int, int]]
"""Extension of each member, without the first dot and in lower case, to its (offset, size) in bytes.

The member without an extension has "", and is there only beside a text and without a picture's extension.
"""


class BrokenTar(Exception):
    """A tar is cut off or damaged; all complete samples before the damage were given."""


def check_tar(path: Path, head: bytes | None = None) -> None:
    """Check a file's first block, or ``head``, that of its content once it is unpacked.

    Raises:
        UserError: it is not a tar; says what it is.
        FileNotFoundError: it is missing.
    """
    if head is None:
        with path.open("rb") as stream:
            head = stream.read(tarfile.BLOCKSIZE)
    if head and not head.strip(b"\0"):  # zeros alone are an empty tar
        return
    if not _is_header(head):
        what = identify(head)
        advice = "replace it or leave it out"
        if what.startswith("compressed"):
            advice = "unpack it (gunzip, unxz, unzstd, ...)"
        raise UserError(f"{path} is {what or 'not a tar'}; {advice}")


def iter_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """The samples of one tar in its order, read from its headers alone.

    As in webdataset, a key includes the folder and ends at the first dot of the base name:
    ``a.b/c.d.jpg`` has the key ``a.b/c`` and the extension ``d.jpg``. Members that are hidden or named
    ``__*__`` belong to no sample, nor do devices. A key may occur twice if
    both samples are complete, as after ``tar --concatenate``; webdataset also reads two samples then.
    Of tars joined with ``cat`` all are read.

    Raises:
        UserError: not a tar, or the members of a sample are not adjacent or occur twice.
        BrokenTar: after the last complete sample of a tar that is cut off or damaged.
    """
    check_tar(path)
    whole: dict[int, bool] = {}  # by the key's hash, since keys may be long
    for key, members in _adjacent(path):
        known, is_whole = hash(key), _is_whole(members)
        if known in whole and not (is_whole and whole[known]):
            raise UserError(
                f"{path}: the members of sample {key!r} are not adjacent; pack it again, with each "
                "name once and tar --sort=name"
            )
        whole[known] = is_whole
        yield key, members


def _adjacent(path: Path) -> Iterator[tuple[str, Members]]:
    """Runs of neighbouring members with the same key; one without an extension ends no run."""
    key, members, bare = "", Members(), ("", (0, 0))
    length = path.stat().st_size
    for name, offset, size in files_in(path):
        new, extension = _split(name)
        if not extension and new != key:
            bare = (new, (offset, size))
            continue
        if new != key:
            if key:
                yield key, _sample(members)
            key, members = new, {"": bare[1]} if bare[0] == new else {}
        if offset + size > length:
            raise BrokenTar(f"cut off within {name}")
        if extension in members:
            raise UserError(f"{path}: {name} occurs twice; two samples share the key {key!r}")
        members[extension] = (offset, size)
    if key:
        yield key, _sample(members)


def _sample(members: Members) -> Members:
    """``members``; the one without an extension only if it may be their picture."""
    kinds = {f".{extension}" for extension in members}
    if kinds.isdisjoint(IMAGE_SUFFIXES) and not kinds.isdisjoint(_TEXT_SUFFIXES):
        return members
    return {extension: place for extension, place in members.items() if extension}


def _is_whole(members: Members) -> bool:
    """Whether there is an image and a text without a second dot; ``mask.png`` and ``0.jpg`` do not count."""
    kinds = {f".{extension}" for extension in members}
    return not kinds.isdisjoint(IMAGE_SUFFIXES) and not kinds.isdisjoint(_TEXT_SUFFIXES)


def _split(name: str) -> tuple[str, str]:
    """Key and extension of a member, which may have no extension; two "" if it belongs to no sample."""
    folder, _, base = f"/{name}".replace("/./", "/").rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or (stem.startswith("__") and base.endswith("__")):
        return "", ""
    return f"{folder}/{stem}".lstrip("/"), extension.lower()


def files_in(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each plain file and link, from its header; links to texts outside are left out."""
    places: dict[str, tuple[int, int]] | None = None
    for member in _members(path):
        if member.isreg():
            yield member.name, member.offset_data, member.size
            continue
        if places is None:  # a second pass over the headers, of the few tars with links
            places = _places(path)
        offset, size = places.get(_target(member), (0, LINK))
        if size != LINK or member.name.lower().endswith(IMAGE_SUFFIXES):
            yield member.name, offset, size


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each plain file, and of each link to an earlier one; up to any damage."""
    places: dict[str, tuple[int, int]] = {}
    with suppress(BrokenTar):
        for member in _members(path):
            name = posixpath.normpath(member.name)
            if member.isreg():
                places[name] = (member.offset_data, member.size)
            elif (target := _target(member)) in places:
                places[name] = places[target]
    return places


def _target(link: tarfile.TarInfo) -> str:
    """The member that a link means: a symbolic link's target is relative to its own folder."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of plain files and links."""
    with path.open("rb") as stream:
        start: int | None = 0
        while start is not None:
            stream.seek(start)
            with _damage():
                opened = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (reads a header)
            with opened as tar:
                while member := _next(tar):
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  (it keeps all)
                    if (
                        (member.isreg() and not member.issparse())
                        or member.islnk()
                        or member.issym()
                    ):
                        yield member
            start = _after_end(stream, tar.offset)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _damage():
        member = tar.next()
    if member is not None and member.size < 0:  # the next header would be searched before this one
        raise BrokenTar(f"damaged, {member.name} has a negative size")
    return member


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what `tarfile` raises on a bad header, its own errors and those of its parsers, into `BrokenTar`."""
    try:
        yield
    except tarfile.TarError as error:
        raise BrokenTar(f"cut off ({error})") from error
    except (ValueError, IndexError, OverflowError, RecursionError) as error:
        raise BrokenTar(f"damaged, a header is invalid ({error})") from error


def _after_end(stream: IO[bytes], offset: int) -> int | None:
    """Where the next tar begins, if one follows the zeros at ``offset`` that end this one; else None.

    A tar without these zeros is complete, too.
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
        UnreadableImage: the tar is missing, cannot be read, or is shorter than before; or the member is a link.
        Unreachable: a tar elsewhere cannot be read now.
        UserError: this user may not read a tar elsewhere.
    """
    if size == LINK:
        raise UnreadableImage(_LINKED)
    if isinstance(path, RemotePath):
        return _read_elsewhere(path, offset, size)
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


def _read_elsewhere(path: RemotePath, offset: int, size: int) -> bytes:
    """As `read_range`; what keeps a machine from being reached is no fault of a picture.

    Raises:
        Unreachable: it cannot be read now.
        UserError: this user may not read it.
    """
    try:
        data = path.read_range(offset, size)
    except FileNotFoundError as error:
        raise UnreadableImage(MISSING_FILE) from error
    except OSError as error:
        raise refusal(path, error) from error
    if len(data) != size:
        raise UnreadableImage("truncated")
    return data


class UnchangedTars:
    """Reads members of tars by their places, as long as each tar is the one whose places are known.

    A tar that is replaced has other pictures at the same places, or the middle of two.
    """

    def __init__(self) -> None:
        self._known: dict[Path | RemotePath, tuple[int, ...] | str | None] = {}
        self._asked: dict[RemotePath, float] = {}  # when, of those elsewhere

    def note(self, path: Path) -> None:
        """Remember a tar, before its places are read; only the first time counts."""
        if path not in self._known:
            is_elsewhere = isinstance(path, RemotePath)
            self._known[path] = path.version() if is_elsewhere else _state_of(path)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """As `read_range`.

        Raises:
            UnreadableImage: as there.
            Unreachable: a tar elsewhere cannot be read now.
            UserError: the tar was replaced or changed, or this user may not read it.
        """
        try:
            return read_range(path, offset, size)
        finally:  # so that one which is replaced before it is opened, or changed meanwhile, is noticed
            self._refuse_another(path)

    def _refuse_another(self, path: Path) -> None:
        if isinstance(path, RemotePath):
            if monotonic() - self._asked.get(path, -_ASK_S) < _ASK_S:
                return  # a request for each picture would double their cost
            self._asked[path] = monotonic()
        known, now = self._known.get(path), _state_of(path)
        if known and now and now != known:
            raise UserError(
                f"{path} was replaced while its pictures were read, so their places in it are not known any "
                "more; type the same command again once no other command writes there"
            )


def _state_of(path: Path | RemotePath) -> tuple[int, ...] | str | None:
    """What changes with a file's bytes; not the time of links to it, which copies of a folder may make."""
    try:
        if isinstance(path, RemotePath):
            return RemotePath(path.url).version() or None
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
