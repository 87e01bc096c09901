"""The archives in which a data set is published, as far as they can be fetched for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file at an address, and what of it belongs into the data set's folder.

    Attributes:
        url: where its authors publish it.
        bytes: its size.
        holds: folder => how many files of it are in the archive; it is there once it has as many.
        files: single files in it, in place of all files of a folder.
        sha256: of the zip file, "" where it is not known.
    """

    url: str
    bytes: int
    holds: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    def wants(self, name: str) -> bool:
        """Whether a file in the archive, by its path there, belongs into the data set's folder."""
        return name in self.files or name.partition("/")[0] in self.holds

    def is_there(self, root: Path) -> bool:
        """Whether all that it holds is in ``root``."""
        return all((root / name).is_file() for name in self.files) and all(
            _count(root / folder) >= count for folder, count in self.holds.items()
        )


def gigabytes(archives: tuple[Archive, ...]) -> str:
    """The size of all of them to read, in units of 10^9 bytes."""
    return f"{sum(archive.bytes for archive in archives) / 1e9:.1f} GB"


def _count(folder: Path) -> int:
    return sum(1 for path in folder.iterdir()) if folder.is_dir() else 0
