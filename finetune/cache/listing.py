"""What a shard holds, noted beside the cache so that the shard need not be read again.

``curate.run.encoded`` finds a picture in a listing by its hex digits in quotes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from curate.run.files import atomic_write
from curate.run.manifest import ShardInfo
from curate.run.progress import Bar
from curate.run.shared_cache import LISTINGS


@dataclass(frozen=True, slots=True)
class Listing:
    """The samples of one shard in order.

    Attributes:
        keys: of the samples.
        pictures: content hash of each one's stored bytes.
        captions: of each one, the most similar first.
    """

    keys: list[str]
    pictures: list[bytes]
    captions: list[tuple[str, ...]]


def listing_path(cache_dir: Path, info: ShardInfo) -> Path:
    """Where the listing of a shard is."""
    return cache_dir / LISTINGS / f"{info.sha256}.json"


def write_listing(path: Path, listing: Listing) -> None:
    """Write a listing, its hash in the first line."""
    content = {
        "keys": listing.keys,
        "pictures": [digest.hex() for digest in listing.pictures],
        "captions": listing.captions,
    }
    body = json.dumps(content, ensure_ascii=False).encode()
    with atomic_write(path) as stream:
        stream.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read_listing(path: Path) -> Listing | None:
    """The listing; None if there is none or, which a line says, it is damaged."""
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != first:
        Bar.write(f"{path} is damaged; the shard is read again")
        return None
    content = json.loads(body)
    return Listing(
        content["keys"],
        [bytes.fromhex(digest) for digest in content["pictures"]],
        [tuple(captions) for captions in content["captions"]],
    )
