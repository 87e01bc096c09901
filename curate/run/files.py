"""Files that exist only when they are complete: written aside, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_BLOCK_BYTES = 1 << 20  # larger ones leave the cache before they are hashed and written
_SYNC_BYTES = 1 << 24
_REPLACED = ".replaced.part"  # ends the name of a folder whose replacement gets its name


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; it appears under its name only if the block succeeds.

    The temporary file carries the process id, so two writers of the same file never share one; the
    later rename wins.

    Raises:
        OSError: the disk is full or refuses; it names ``path`` where the system named nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path), part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the file system that names no file, such as a full disk, the name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def replace_folder(part: Path, folder: Path) -> None:
    """Give the finished folder ``part`` the name ``folder``; what had that name goes afterwards.

    Killed in between, the old folder is under another name until ``remove_parts`` gives it back.
    """
    sync_tree(part)
    aside = folder.with_name(f".{folder.name}{_REPLACED}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    part.rename(folder)
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Bring a folder's files and names to the disk, so that a rename never comes before its content."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_data(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)  # macOS has no fdatasync


class HashingWriter:
    """Writes to a stream in blocks; threads hash them and sync them to the disk meanwhile.

    Hashing by reading again takes as long as writing, and a disk that is synced only at the end is idle
    until then.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._waiting = self._unsynced = 0
        self._digest = hashlib.sha256()
        self._threads = {name: ThreadPoolExecutor(1) for name in ("hash", "sync")}
        self._hashed = self._threads["hash"].submit(self._digest.update, b"")
        self._synced = self._threads["sync"].submit(lambda: None)

    def __enter__(self) -> HashingWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._synced.result()
        finally:
            for thread in self._threads.values():
                thread.shutdown()

    def write(self, *parts: bytes) -> None:
        """Append ``parts``."""
        self._parts += parts
        self._waiting += sum(map(len, parts))
        if self._waiting >= _BLOCK_BYTES:
            self._flush()

    def hexdigest(self) -> str:
        """Of all that was written."""
        self._hashed.result()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        block = b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        self._hashed.result()
        self._hashed = self._threads["hash"].submit(self._digest.update, block)
        self._stream.write(block)
        self._unsynced += len(block)
        if self._unsynced >= _SYNC_BYTES:
            self._unsynced = 0
            self._synced.result()
            self._synced = self._threads["sync"].submit(_sync_data, self._stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with sorted keys, atomically; NaN and infinity raise ``ValueError``."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None if the file is missing, damaged, or holds no object."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_parts(folder: Path) -> None:
    """Delete the temporary files and folders that killed writers left in ``folder`` and below.

    Call it only where nobody else writes; see ``locks.locked``.
    """
    for part in [*folder.rglob(".*.part")]:
        replaced = part.with_name(part.name.removesuffix(_REPLACED)[1:])
        if part.name.endswith(_REPLACED) and not replaced.exists():
            part.rename(replaced)
        elif part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
