"""Arrays in one ``.npz``: the same content gives the same bytes, and damage is noticed on reading.

The comment of the zip around the arrays has the SHA-256 of the file as it was without a comment.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from curate.run.files import atomic_write

_SAYS = b"sha256:"


class DamagedArrays(Exception):
    """The file is not what was written."""


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` by name, in their order, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = _SAYS + digest.encode()
    with atomic_write(path) as stream:
        stream.write(buffer.getvalue())


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays by name; those of earlier releases have the zip's CRC-32 alone.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedArrays: it is damaged.
    """
    content = path.read_bytes()
    if not _is_intact(content):
        raise DamagedArrays(f"{path} is damaged (its checksum is another)")
    try:
        with np.load(io.BytesIO(content)) as stored:
            return {name: stored[name] for name in stored.files}
    # What zipfile and numpy raise for a header, a length, a flag or a name that is no longer one.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        RuntimeError,
        OSError,
    ) as error:
        raise DamagedArrays(f"{path} is damaged ({error})") from error


def _is_intact(content: bytes) -> bool:
    length = len(_SAYS) + 64
    if not content[-length:].startswith(_SAYS):
        return True
    without = content[: -length - 2] + bytes(2)  # the comment's length is ahead of it
    return hashlib.sha256(without).hexdigest().encode() == content[-64:]
