"""Tar files by offset: the samples of a WebDataset shard, and a member's bytes at random."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

Members = dict[str, tuple[int, int]]
"""Extension without its dot -> where the member's bytes start, and how many there are."""


def iter_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """Each sample's key and members, from the headers alone; neighbours of one key are a sample."""
    current, members = "", {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue] (it would grow with the file)
            if not member.isfile():
                continue
            folder, slash, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            key = f"{folder}{slash}{stem}"
            if key != current and members:
                yield current, members
                members = {}
            current = key
            members[extension.lower()] = member.offset_data, member.size
    if members:
        yield current, members


def read_range(path: Path, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset``."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)
