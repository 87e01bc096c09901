"""Unpack a zip file that somebody else made: nothing outside a folder, no links, no more than it may hold."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from curate.readers.archives import Archive
from curate.run.progress import Bar
from curate.run.schema import UserError

MOST_TIMES_LARGER = (
    5  # than the zip file: JPEGs hardly shrink in one, and all of COCO's captions are few
)
MOST_FILES = 1_000_000

_ENCRYPTED = 0x1  # flag bit 0 (PKWARE's APPNOTE, 4.4.4)
# What a file system says of a name: too long, not its letters, or another one's but for upper case.
_NAMES_REFUSED = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.ENOTDIR)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack(archive: Archive, path: Path, root: Path, aside: Path) -> int:
    """Unpack what ``archive`` wants of the zip file ``path`` into ``root``; returns how many files.

    All is unpacked into ``aside`` first, with its checksums (CRC-32) compared. A folder is then moved as a
    whole where ``root`` has none of its name; else its files, one by one.

    Raises:
        UserError: the file is no sound zip file, or holds what it must not; names it. A damaged one is deleted. Or
            ``root`` has a file where the archive has a folder, or the reverse.
        OSError: the disk is full.
    """
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process
    try:
        with zipfile.ZipFile(path) as opened:
            members = list(_members(archive, opened))
            _check_total(archive, members, path)
            _extract(archive, opened, members, aside)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        path.unlink()
        raise UserError(
            f"{archive.name} is damaged ({error}); it was deleted. Type the same command again"
        ) from error
    except UserError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    os.sync()  # or a name could reach the disk before what it names
    for folder in sorted(aside.iterdir()):
        _move(folder, root / folder.name)
    shutil.rmtree(aside)
    return len(members)


def _members(archive: Archive, opened: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """The files that are wanted, each once.

    Raises:
        UserError: one has a path that leads out or that another one has, is a link or a device, or is encrypted.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for member in opened.infolist():
        if member.is_dir() or not archive.wants(member.filename):
            continue
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        parts = PurePosixPath(name).parts
        is_plain = "\\" not in name and "\0" not in name and name == "/".join(parts)
        if name.startswith("/") or ".." in parts or not is_plain:
            raise UserError(f"{archive.name} holds {name!r}, whose path leads elsewhere")
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{archive.name} holds {name!r}, which is a link or no file")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise UserError(
                f"{archive.name} holds {name!r}, which is encrypted or packed unusually"
            )
        if name in seen:
            raise UserError(f"{archive.name} holds {name!r} twice")
        above = {str(folder) for folder in PurePosixPath(name).parents}
        folders |= above
        if both := ({name} & folders) | (seen & above):
            raise UserError(f"{archive.name} holds {both.pop()!r} as a file and as a folder")
        seen.add(name)
        yield member
        if len(seen) > MOST_FILES:
            raise UserError(f"{archive.name} holds more than {MOST_FILES:,} files")


def _check_total(archive: Archive, members: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuse what would unpack to much more than it is, or does not fit on the disk.

    The directory's sizes bind: a file is not read any further than its own says.
    """
    total = sum(member.file_size for member in members)
    if total > MOST_TIMES_LARGER * archive.bytes:
        raise UserError(
            f"{archive.name} would unpack to {total / 1e9:.1f} GB, which it cannot hold"
        )
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise UserError(
            f"{archive.name} unpacks to {total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {path.parent}; "
            "make room, and type the same command again"
        )


def _extract(
    archive: Archive, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], aside: Path
) -> None:
    aside.mkdir(parents=True)
    for member in Bar(members, desc=f"unpack {archive.name}", unit="file"):
        target = aside / member.filename
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except OSError as error:
            if error.errno not in _NAMES_REFUSED:
                raise
            raise UserError(
                f"{archive.name} holds {member.filename!r}, for which the disk has no name ({error.strerror})"
            ) from error
        with file, opened.open(member) as stream:
            shutil.copyfileobj(stream, file)  # raises at the end where the checksum differs


def _move(source: Path, target: Path) -> None:
    """Move a folder, or its files into a folder that is there already."""
    if source.is_dir() and target.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
    elif target.exists() and source.is_dir() != target.is_dir():
        kinds = ("file", "folder") if source.is_dir() else ("folder", "file")
        raise UserError(
            f"{target} is a {kinds[0]}, and the archive holds a {kinds[1]} of that name; move it away, and type "
            "the same command again"
        )
    else:
        source.replace(target)
