"""Parquet tables that carry a checksum of themselves, and what is raised where it does not hold.

The footer's metadata has the SHA-256 of the whole file, computed with these 64 digits as zeros. It
needs no second file, which a killed program could leave behind, and any reader of parquet ignores it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.files import Identity, atomic_write, identity_of
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = "darkroom.sha256"
_ZEROS = b"0" * 64
# As Thrift's compact protocol writes it: the key, the header of a text (0x18), its length (64).
_MARK = _KEY.encode() + b"\x18\x40"

_intact: set[Identity] = set()  # files that this process has checked or written


def write_table(path: Path, table: pa.Table) -> None:
    """Write ``table`` with its checksum, atomically; it is in memory meanwhile."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: _ZEROS.decode()})
    content = bytearray(buffer.getvalue())
    place = content.rindex(_MARK) + len(_MARK)
    content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()
    with atomic_write(path) as stream:
        stream.write(content)
    _intact.add(identity_of(path))


def schema_as_written(path: Path) -> pa.Schema:
    """The types that a table was written with; of categories in long texts, ``read_table`` makes short ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path).metadata or {}
    if (encoded := metadata.get(b"ARROW:schema")) is None:  # of another program
        return pq.read_schema(path)
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))


def digest_of(path: Path) -> tuple[str, str | None]:
    """The SHA-256 that a file has, its own 64 digits taken as zeros, and the one that it says.

    Tables of earlier releases and of other programs say none.
    """
    content = path.read_bytes()
    said, place = _said(content)
    found = hashlib.sha256()
    for part in _without(memoryview(content), place) if said else (content,):
        found.update(part)
    return found.hexdigest(), said


def checksum_in(path: Path) -> str | None:
    """The SHA-256 that a table says of itself, unchecked; None where it says none."""
    with path.open("rb") as stream:
        end = stream.seek(0, SEEK_END)
        stream.seek(max(0, end - 8))
        footer = int.from_bytes(stream.read(4), "little")  # its length, ahead of the last 4 bytes
        stream.seek(max(0, end - 8 - footer))
        return _said(stream.read())[0]


def _said(content: bytes) -> tuple[str | None, int]:
    """What a file says, and where."""
    # The footer's metadata are the last thing in a file that can hold the mark.
    place = content.rfind(_MARK)
    if place < 0:
        return None, 0
    place += len(_MARK)
    return content[place : place + 64].decode("ascii", "replace"), place


def _without(content: memoryview, place: int) -> tuple[memoryview | bytes, ...]:
    """The file in parts, the digits at ``place`` as zeros."""
    return content[:place], _ZEROS, content[place + 64 :]


def is_intact(path: Path) -> bool:
    """Whether the file is what it says of itself, or says nothing.

    A file is read once in a process, unless it is replaced.
    """
    known = identity_of(path)
    if known in _intact:
        return True
    found, said = digest_of(path)
    if said not in (None, found):
        return False
    _intact.add(known)
    return True


def check_ahead(paths: Sequence[Path]) -> list[Path]:
    """Check many files at once, for readers that take one after the other; those that are damaged, in order."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(is_intact, paths)
        return [path for path, intact in zip(paths, found, strict=True) if not intact]


def damaged(path: Path, advice: str) -> UserError:
    """What to raise for a file that is not what it says of itself; ``advice`` says what to do."""
    return UserError(f"{path} is damaged (its checksum is another); {advice}")


@contextmanager
def reporting_damage(path: Path, remedy: str | Callable[[], str]) -> Iterator[None]:
    """Check ``path``; turn what arrow raises for a damaged one into a ``UserError`` as well.

    ``remedy`` says what to do; a function is only called if there is damage.
    """
    advice = remedy if callable(remedy) else lambda: remedy
    if not is_intact(path):
        raise damaged(path, advice())
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        said = " ".join(str(error).split())  # arrow's has several lines
        raise UserError(f"{path} is damaged ({said}); {advice()}") from error


def is_damage(error: Exception) -> bool:
    """Whether the file's bytes are damaged: a footer, a page, a name in the footer.

    Errors of the system (they have a number) and lack of memory are not.
    """
    import pyarrow as pa

    said_by_arrow = isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError))
    refused = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
    return said_by_arrow and not refused
