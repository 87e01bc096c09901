"""Files that exist only when they are complete: written aside, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

CHECKSUM = "checksum"  # the key of a JSON file's own SHA-256

_BLOCK_BYTES = 1 << 20  # larger ones leave the cache before they are hashed and written
_SYNC_BYTES = 1 << 24
_REPLACED = ".replaced.part"  # ends the name of a folder whose replacement gets its name

Identity = tuple[str, int, int, int]  # path, size, time of the last change, inode


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; it appears under its name only if the block succeeds.

    Two writers of the same file never share a temporary one; the later rename wins.

    Args:
        path: of the file.
        sync: whether its content is on the disk before it has its name. Leave it out for working files, which
            the next start writes again.

    Raises:
        OSError: the disk is full or refuses; it names ``path`` where the system named nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        with naming(path), part.open("wb") as stream:
            yield stream
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """A name beside ``path`` for what is not complete, which ``remove_parts`` finds.

    It is another one each time: by the machine as well, since several share a file system, on which processes of two
    containers may have one number.
    """
    host = re.sub(r"[^0-9A-Za-z]", "", platform.node())[:12]
    return path.with_name(f".{path.name}.{host}-{os.getpid()}-{secrets.token_hex(4)}.part")


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

    Others may read its files as the umask says, whoever wrote them. Killed in between, the old folder is under
    another name until ``remove_parts`` gives it back.
    """
    give_usual_permissions(part)
    sync_tree(part)
    aside = folder.with_name(f".{folder.name}{_REPLACED}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    part.rename(folder)
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def give_usual_permissions(folder: Path) -> None:
    """Give the files of a folder the permissions of one that is simply opened, as the umask says.

    Those that safetensors writes, for diffusers as well, come from a temporary file that only its owner may read.
    """
    probe = temporary(folder / "mode")  # asking for the umask would change it for other threads
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        found = path.lstat().st_mode
        if stat.S_ISREG(found) and stat.S_IMODE(found) != mode:
            path.chmod(mode)


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


def write_certified(path: Path, value: Mapping[str, Any]) -> None:
    """As ``write_json``, with a checksum of all other keys, which ``read_json`` compares."""
    content = {name: item for name, item in value.items() if name != CHECKSUM}
    write_json(path, {**content, CHECKSUM: _checksum(content)})


def read_json(path: Path, sealed: bool = False) -> dict[str, Any] | None:
    """The object that a JSON file holds, without its checksum.

    None if the file is missing, is damaged, contradicts its checksum, or holds no object; of ``sealed``
    files, which no earlier release wrote, also if it has no checksum.
    """
    try:
        content = json.loads(path.read_bytes())
        said = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
        intact = said == _checksum(content) or (said is None and not sealed)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if intact and isinstance(content, dict) else None


def contradicts_itself(path: Path) -> bool:
    """Whether a file is no JSON, or has a checksum that does not hold; others may hold anything."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and CHECKSUM in content and read_json(path) is None


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON object says, however it is laid out."""
    as_read = json.loads(json.dumps(content, allow_nan=False))  # where keys are text
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identity_of(path: Path) -> Identity:
    """Changes when a file is replaced or written to."""
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino


def sha256_once(path: Path) -> str:
    """As ``sha256_of``; a file is read once in a process, unless it is replaced."""
    return _sha256_of(identity_of(path))


@lru_cache(maxsize=4096)
def _sha256_of(identity: Identity) -> str:
    return sha256_of(Path(identity[0]))


def remove_folder(path: Path) -> None:
    """Delete a folder, if it is there. If the process is killed, it is still complete or already gone."""
    part = path.with_name(f".{path.name}.removed.part")
    shutil.rmtree(part, ignore_errors=True)
    if path.exists():
        path.rename(part)
        shutil.rmtree(part)


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
