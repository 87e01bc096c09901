"""Readers list a source's images and captions as candidates: one of `READERS` per family, and its helpers."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module

from curate.command import UserError
from curate.config import DatasetConfig
from curate.sample import Candidate

READERS = ("coco", "folder", "openmoji")


@dataclass(frozen=True, slots=True)
class Listing:
    """All candidates of a data set, in a fixed order, and what the reader wants the user to know."""

    candidates: list[Candidate]
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        """Rows that the ledger must have: one for each caption, and for each image without any."""
        return sum(max(1, len(candidate.captions)) for candidate in self.candidates)


def read(config: DatasetConfig) -> Listing:
    """List the data set without opening an image.

    Raises:
        UserError: no such reader, a key used twice, or nothing found.
        FileNotFoundError: the folder that the configuration names is missing.
    """
    if config.reader not in READERS:
        raise UserError(
            f"dataset.reader={config.reader!r} is unknown; accepted: {', '.join(READERS)}"
        )
    listing: Listing = import_module(f"curate.readers.{config.reader}").read(config)
    if not listing.candidates:
        raise UserError("; ".join([f"dataset={config.name} holds no images", *listing.notes]))
    _check_keys(listing.candidates)
    return listing


def _check_keys(candidates: list[Candidate]) -> None:
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.key in seen:
            raise UserError(
                f"two images of this data set share the key {candidate.key!r}; rename one of them"
            )
        seen.add(candidate.key)
