"""Stop a pass when too many images in a row are unreadable: a broken decoder must not quietly drop them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.measures.not_fetched import is_absent
from curate.run.schema import UserError

WINDOW = 512  # images, the default size of a part; of how the pass is cut nothing depends
COLUMNS = ("caption_index", "location", "error")

_Image = tuple[str, str, Path]
"""Error, location, the part that holds it."""


class Rejects:
    """Counts the unreadable images of a pass, ``WINDOW`` at a time."""

    def __init__(self, limit: float) -> None:
        """``limit``: the share of a window that may be unreadable."""
        self._limit = limit
        self._images: list[_Image] = []  # of the window that is not full yet
        self._full_windows = 0

    def add(self, path: Path, part: pa.Table) -> None:
        """Count the images of ``part``, which has at least ``COLUMNS`` and lies at ``path``.

        Raises:
            UserError: a window is full and holds too many that are unreadable. The parts that hold them
                are deleted, so that they are measured again once the cause is mended.
        """
        images = part.filter(pc.field("caption_index") == 0)
        errors, locations = (images[name].to_pylist() for name in ("error", "location"))
        self._images += [(*image, path) for image in zip(errors, locations, strict=True)]
        while len(self._images) >= WINDOW:
            self._check(self._images[:WINDOW])
            self._full_windows += 1
            del self._images[:WINDOW]

    def finish(self) -> None:
        """Check a pass that was shorter than a window; the rest of a longer one says little."""
        if not self._full_windows:
            self._check(self._images)

    def _check(self, window: list[_Image]) -> None:
        """A picture that is missing, or that was not fetched, is not a decoder's fault."""
        present = [image for image in window if not is_absent(image[0])]
        rejected = [image for image in present if image[0]]
        if len(rejected) <= self._limit * len(present):
            return
        for path in {path for *_, path in rejected}:
            path.unlink(missing_ok=True)
        counts = Counter(error for error, *_ in rejected).most_common(5)
        reasons = ", ".join(f"{error}: {count}" for error, count in counts)
        raise UserError(
            f"{len(rejected)} of {len(present)} images in a row are unreadable ({reasons}; the first is "
            f"{rejected[0][1]!r}), more than annotate.max_reject_rate={self._limit}; mend the input, or type "
            "annotate.max_reject_rate=1"
        )
