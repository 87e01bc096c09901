"""Tensors under content hashes, in files that are never changed once they are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from curate.run.encoded import KEYS
from curate.run.files import atomic_write, sha256_of
from curate.run.progress import Bar
from curate.run.shared_cache import touch
from finetune.cache.rows import Rows

ENTRIES = 1000  # at most so many in a file
_HASH = np.dtype("S32")


def content_hash(content: bytes) -> bytes:
    """The 32 bytes under which something made from ``content`` is kept."""
    return hashlib.sha256(content).digest()


def hashes(digests: Sequence[bytes]) -> np.ndarray:
    """Content hashes as an array (N,). NumPy drops zero bytes at the end, from all of them alike."""
    return np.array(digests, _HASH)


class Packs:
    """The files of one folder.

    Where several hold the same entry, as after two trainings at once, that of the first name counts.

    Args:
        folder: of one encoder; need not exist.
        check: whether each file is compared with its hash before it is first used. One that differs is
            deleted with a line, and its entries count as missing.
    """

    def __init__(self, folder: Path, *, check: bool) -> None:
        self.folder = folder
        self._trusted: set[Path] | None = set() if check else None
        self._files = sorted(folder.glob("*.safetensors"))
        self._index()

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """For each of ``wanted`` (N,), see :func:`hashes`, its place, int64; -1 where there is none."""
        while True:
            places = self._look_up(wanted)
            used = np.unique(self._file[places[places >= 0]])
            if not self._discard_damaged([self._files[number] for number in used]):
                return places

    def hold(self, groups: Sequence[Sequence[bytes]]) -> list[bool]:
        """For each group of content hashes, whether there is an entry for all of them."""
        places = self.find(hashes([digest for group in groups for digest in group]))
        ends = np.cumsum([len(group) for group in groups], dtype=np.int64)
        return [bool((part >= 0).all()) for part in np.split(places, ends[:-1])][: len(groups)]

    def rows(self, places: np.ndarray) -> Rows:
        """The entries at ``places``, mapped from their files, which count as used now."""
        used, numbers = np.unique(self._file[places], return_inverse=True)
        touch(self._files[number] for number in used)
        tensors = [load_file(self._files[number]) for number in used]
        for found in tensors:
            del found[KEYS]
        return Rows(tensors, numbers, self._row[places])

    def _look_up(self, wanted: np.ndarray) -> np.ndarray:
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        places = np.searchsorted(self._sorted, wanted).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[places] == wanted, self._order[places], -1)

    def _index(self) -> None:
        """Note the place of each entry: its file, its row there, and the order of all hashes."""
        found = [_keys_of(path) for path in self._files]
        self._files = [path for path, keys in zip(self._files, found, strict=True) if len(keys)]
        found = [keys for keys in found if len(keys)]
        sizes = [len(keys) for keys in found]
        self._file = np.repeat(np.arange(len(found)), sizes)
        self._row = np.concatenate([np.arange(size) for size in [*sizes, 0]])
        keys = np.concatenate([*found, hashes([])])
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def _discard_damaged(self, paths: list[Path]) -> bool:
        """Check files that are used for the first time; whether any had to be left out."""
        if self._trusted is None:
            return False
        new = [path for path in paths if path not in self._trusted]
        if not new:
            return False
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sound = list(Bar(pool.map(_is_sound, new), "check", len(new), unit="file", delay=5))
        self._trusted |= {path for path, good in zip(new, sound, strict=True) if good}
        damaged = {path for path, good in zip(new, sound, strict=True) if not good}
        for path in damaged:
            _discard(path)
        if damaged:
            self._files = [path for path in self._files if path not in damaged]
            self._index()
        return bool(damaged)


def write_pack(folder: Path, keys: Sequence[bytes], tensors: dict[str, Tensor]) -> None:
    """Write one file of entries; ``tensors`` have a row for each of ``keys``."""
    stored = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, 32)
    data = save({KEYS: stored, **tensors})
    with atomic_write(folder / f"{hashlib.sha256(data).hexdigest()}.safetensors") as stream:
        stream.write(data)


def _keys_of(path: Path) -> np.ndarray:
    """The hashes (n,) that a file holds; none if it is not there any more, or damaged so that it shows."""
    try:
        with safe_open(path, framework="np") as file:
            keys = file.get_tensor(KEYS)
        if keys.dtype == np.uint8 and keys.ndim == 2 and keys.shape[1] == _HASH.itemsize:
            return np.ascontiguousarray(keys).view(_HASH).ravel()
    except FileNotFoundError:  # deleted by another training
        return hashes([])
    except SafetensorError:
        pass
    _discard(path)
    return hashes([])


def _is_sound(path: Path) -> bool:
    try:
        return sha256_of(path) == path.stem
    except FileNotFoundError:
        return False


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:  # another training was first
        return
    Bar.write(f"{path} is damaged; it was deleted, and what it held is encoded again")
