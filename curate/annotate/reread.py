"""Parts whose images the next pass reads again, because a change showed in nothing but the bytes."""

from __future__ import annotations

from pathlib import Path

from curate.annotate.parts import read_part
from curate.readers.candidate import Candidate

_SUFFIX = ".reread.parquet"


def read_again(folder: Path, candidate: Candidate) -> bool:
    """Mark all parts in ``folder`` if one of them still knows ``candidate``, which has changed.

    Then its version does not show a change of its bytes, and may not show those of others. What a
    marked part knows is found by content only: the next pass reads each image once, and measures
    those that did change.

    Raises:
        UserError: a part is damaged.
    """
    parts = [path for path in sorted(folder.glob("part-*.parquet")) if not is_marked(path)]
    if not any(_knows(path, candidate) for path in parts):
        return False
    for path in parts:
        path.rename(path.with_suffix(_SUFFIX))
    return True


def is_marked(path: Path) -> bool:
    """Whether ``read_again`` has marked a part."""
    return path.name.endswith(_SUFFIX)


def _knows(path: Path, candidate: Candidate) -> bool:
    rows = read_part(path, ["key", "version"])
    keys, versions = (rows[name].to_pandas() for name in ("key", "version"))
    return bool(((keys == candidate.key) & (versions == candidate.version)).any())
