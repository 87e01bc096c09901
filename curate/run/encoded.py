"""What the encoders made, as plain files of the cache, and how removed pictures are taken out of them.

A pack is a safetensors file named after the SHA-256 of its content: ``content_hashes`` [n, 32] uint8, and
beside it tensors with a row for each of them. A listing is a text that holds the hex digits of its pictures'
hashes. The hashes are those of the bytes that a shard stores, and of a caption's UTF-8.

``finetune.cache`` writes and reads them; this module needs no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from curate.run.files import atomic_write
from curate.run.progress import Bar
from curate.run.shared_cache import CONDITIONING, LATENTS, LISTINGS

KEYS = "content_hashes"

_HEX_DIGITS = 64


def take_out(
    cache_dir: Path, pictures: Collection[bytes], captions: Collection[bytes]
) -> Counter[str]:
    """Take what was made of some pictures and captions out of all packs and listings.

    A training that has mapped a pack keeps it until it ends. Doing it again changes nothing, so an
    interrupted one is done again. Call it under the lock of the cache.

    Args:
        cache_dir: the cache.
        pictures: SHA-256 of the bytes that shards store.
        captions: SHA-256 of their UTF-8.

    Returns:
        How many entries of each kind were deleted, by the folder of the kind.
    """
    found: Counter[str] = Counter()
    for kind, wanted in ((LATENTS, pictures), (CONDITIONING, captions)):
        for path in sorted((cache_dir / kind).glob("*/*.safetensors")):
            found[kind] += _rewrite(path, wanted)
    digits = {digest.hex() for digest in pictures}
    for path in sorted((cache_dir / LISTINGS).glob("*.json")):
        if not digits.isdisjoint(_digits_in(path)):
            path.unlink(missing_ok=True)
            found[LISTINGS] += 1
    return found


def _digits_in(path: Path) -> set[str]:
    """All texts in quotes that are as long as a hash."""
    try:
        quoted = path.read_bytes().split(b'"')
    except FileNotFoundError:  # deleted meanwhile
        return set()
    return {text.decode("ascii", "replace") for text in quoted if len(text) == _HEX_DIGITS}


def _rewrite(path: Path, wanted: Collection[bytes]) -> int:
    """Replace a pack by one without some entries; returns how many it held. A damaged one is deleted."""
    import numpy as np
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load, save

    try:
        with safe_open(path, framework="np") as pack:
            keys = [row.tobytes() for row in pack.get_tensor(KEYS)]
        goes = np.array([key in wanted for key in keys], bool)
        if not goes.any():
            return 0
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != path.stem:
            raise SafetensorError("its hash is not its name")
        tensors = load(content)
        used_ns = path.stat().st_mtime_ns
    except FileNotFoundError:  # deleted meanwhile
        return 0
    except (SafetensorError, KeyError):  # KeyError: numpy lacks a type of its tensors
        path.unlink(missing_ok=True)
        Bar.write(f"{path} cannot be read; it was deleted, and what it held is encoded again")
        return 0
    if not goes.all():
        left = save({name: np.ascontiguousarray(rows[~goes]) for name, rows in tensors.items()})
        name = path.with_name(f"{hashlib.sha256(left).hexdigest()}.safetensors")
        with atomic_write(name) as stream:
            stream.write(left)
        os.utime(name, ns=(used_ns, used_ns))
    path.unlink(missing_ok=True)
    return int(goes.sum())
