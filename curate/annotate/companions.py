"""Whether the companions of a part's pictures fit them: read, decoded and compared once, with the part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from curate.annotate.cache import ImageRecord
from curate.measures.decode import decode
from curate.measures.unreadable import UnreadableImage
from curate.readers.candidate import Candidate
from curate.run.companions import ERROR, location_column, sha256_column

_ONE_PIXEL = 1.0  # what a side may be off by rounding


def columns(
    candidates: Sequence[Candidate],
    records: Sequence[ImageRecord],
    load: Callable[[str], bytes],
    pool: Executor,
) -> list[dict[str, Any]]:
    """What the table says of each candidate's companions, by column; nothing of one that has none.

    ``companion_error`` says what is wrong with the first that does not fit, "" where all do.
    """

    def of(candidate: Candidate, record: ImageRecord) -> dict[str, Any]:
        found: dict[str, Any] = {ERROR: ""} if candidate.companions else {}
        for companion in candidate.companions:
            found[location_column(companion.kind)] = companion.location
            try:
                data = load(companion.location)
                found[sha256_column(companion.kind)] = hashlib.sha256(data).hexdigest()
                wrong = _wrong(data, record)
            except UnreadableImage as error:
                wrong = f"cannot be decoded: {error.reason}"
            if wrong and not found[ERROR]:
                found[ERROR] = f"{companion.kind} {wrong}"
        return found

    return list(pool.map(of, candidates, records))


def _wrong(data: bytes, record: ImageRecord) -> str:
    """What is wrong with a companion; of a picture whose size is not known nothing."""
    size = decode(data).size
    if record.width and not same_aspect(size, (record.width, record.height)):
        return "has another aspect than the picture"
    return ""


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two widths and heights are of one shape, to a pixel of the smaller.

    >>> same_aspect((512, 341), (3000, 2000)), same_aspect((512, 512), (3000, 2000))
    (True, False)
    """
    (width, height), (wide, high) = sorted((one, other))
    return (
        abs(width - height * wide / high) <= _ONE_PIXEL
        or abs(height - width * high / wide) <= _ONE_PIXEL
    )
