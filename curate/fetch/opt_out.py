"""Lists of those who opted out: hosts, addresses and pictures that are never fetched or kept.

A host costs about 100 bytes of memory, an address or a picture 8: of a digest its first 64 bits are kept,
so that one of 10^9 entries meets another picture by chance in 5 of 10^11 cases.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curate.fetch.config import FetchConfig
from curate.fetch.targets import in_dns
from curate.run.schema import UserError

_HOST = re.compile(r"[^\s/:@]+")
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_MD5_LETTERS = 32
_KEPT_LETTERS = 16  # of a digest in hexadecimal


class OptOut:
    """What the files of ``fetch.opt_out_*`` list.

    Attributes:
        has_md5, has_sha256: whether there are pictures by this digest.
    """

    def __init__(self, config: FetchConfig) -> None:
        """Read the files.

        Raises:
            UserError: one cannot be read, or has a line that is no entry of its kind.
        """
        self._hosts = frozenset(_hosts(config.opt_out_hosts))
        addresses = map(_address_key, _entries("opt_out_urls", config.opt_out_urls))
        self._addresses = np.unique(np.fromiter(addresses, np.uint64))
        self._md5, self._sha256 = _digests(config.opt_out_hashes)
        self.has_md5, self.has_sha256 = len(self._md5) > 0, len(self._sha256) > 0

    def has_host(self, name: str) -> bool:
        """Whether a host, or one that it is below, is listed; ``name`` in lower case."""
        if not self._hosts:
            return False
        labels = name.rstrip(".").split(".")
        return any(".".join(labels[start:]) in self._hosts for start in range(len(labels)))

    def has_address(self, text: str) -> bool:
        """Whether exactly this address is listed, but for spaces around it."""
        return len(self._addresses) > 0 and _is_in(self._addresses, _address_key(text.strip()))

    def has_picture(self, digest: str) -> bool:
        """Whether a picture of this md5 or sha256, in hexadecimal, is listed."""
        digests = self._md5 if len(digest) == _MD5_LETTERS else self._sha256
        return len(digests) > 0 and _is_in(digests, int(digest[:_KEPT_LETTERS], 16))


def _hosts(path: str | None) -> Iterator[str]:
    for host in _entries("opt_out_hosts", path):
        name = host.removeprefix("*.").strip(".").lower()
        if not _HOST.fullmatch(name):
            raise UserError(
                f"fetch.opt_out_hosts={path} has {host!r}, which is no host; type one name a line, as in "
                "example.org, without https:// and without a path"
            )
        yield name if name.isascii() else in_dns(name)


def _digests(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Of md5 and of sha256."""
    kept = array("Q"), array("Q")
    for entry in _entries("opt_out_hashes", path):
        digest = entry.lower()
        if not _DIGEST.fullmatch(digest):
            raise UserError(
                f"fetch.opt_out_hashes={path} has {entry!r}, which is no md5 (32 letters or digits) or sha256 "
                "(64) in hexadecimal; type one a line"
            )
        kept[len(digest) != _MD5_LETTERS].append(int(digest[:_KEPT_LETTERS], 16))
    return np.unique(np.asarray(kept[0], np.uint64)), np.unique(np.asarray(kept[1], np.uint64))


def _entries(key: str, path: str | None) -> Iterator[str]:
    """The lines of a file, without empty ones and those that begin with ``#``."""
    if path is None:
        return
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig") as lines:
            for line in lines:
                if (entry := line.strip()) and not entry.startswith("#"):
                    yield entry
    except OSError as error:
        raise UserError(
            f"fetch.{key}={path} cannot be read ({error.strerror}); type the path of a file with one entry "
            f"a line, or fetch.{key}=null"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"fetch.{key}={path} is no text in UTF-8; save it as such") from error


def _address_key(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )


def _is_in(keys: np.ndarray, key: int) -> bool:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place < len(keys) and int(keys[place]) == key
