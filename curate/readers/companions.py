"""Which files of a source are companions of a picture, see ``curate.run.companions``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from curate.run.companions import KINDS, SUFFIX, extension_of


@dataclass(frozen=True, slots=True)
class Companion:
    """One of them.

    Attributes:
        kind: of ``KINDS``.
        location, version: as of a ``Candidate``.
    """

    kind: str
    location: str
    version: str


def claimed(names: Collection[str], captioned: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """The companions among the images of a folder, by the stem that they belong to, and their kinds.

    A file belongs to the pictures ``STEM.*`` where there is one, and where no caption file makes it a picture of its
    own.

    Args:
        names: of the images.
        captioned: stems of files that have a caption file.

    >>> claimed(["a.jpg", "a.mask.png", "b.mask.png"])
    {'a': {'mask': 'a.mask.png'}}
    """
    own = {stem.lower() for stem in captioned}
    endings = {f".{extension_of(kind)}": kind for kind in KINDS}
    found: dict[str, dict[str, str]] = {}
    others = set()
    for name in sorted(names):
        kind = next((kind for end, kind in endings.items() if name.lower().endswith(end)), None)
        if kind is None or not own.isdisjoint((name.lower(), name[: -len(SUFFIX)].lower())):
            others.add(name.rpartition(".")[0])
        else:
            found.setdefault(name[: -len(extension_of(kind)) - 1], {})[kind] = name
    return {stem: kinds for stem, kinds in found.items() if stem in others}
