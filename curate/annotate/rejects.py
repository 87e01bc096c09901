"""Stop a pass when too many images in a row are unreadable: a broken decoder must not quietly drop them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curate.measures.not_fetched import is_absent
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 512  # images, the default size of a part; of how the pass is cut nothing depends
COLUMNS = ("caption_index", "location", "error")


@dataclass(frozen=True, slots=True)
class Errors:
    """What cannot be read in a part.

    Attributes:
        images: how many images the part has.
        found: place among them, error and location of each that cannot be read.
    """

    images: int
    found: tuple[tuple[int, str, str], ...] = ()

    @classmethod
    def of(cls, part: pa.Table) -> Errors:
        """Those of a part, which has at least ``COLUMNS``."""
        import pyarrow.compute as pc

        images = part.filter(pc.field("caption_index") == 0)
        errors, locations = (images[name].to_pylist() for name in ("error", "location"))
        found = enumerate(zip(errors, locations, strict=True))
        return cls(len(images), tuple((place, e, at) for place, (e, at) in found if e))


_Image = tuple[str, str, Path]
"""Error, location, the part that holds it."""


class TooMany(UserError):
    """More images in a row are unreadable than ``annotate.max_reject_rate`` allows."""


class Rejects:
    """Counts the unreadable images of a pass, ``WINDOW`` at a time."""

    def __init__(self, limit: float) -> None:
        """``limit``: the share of a window that may be unreadable."""
        self._limit = limit
        self._start = 0  # of the window that is not full yet, as a number of images
        self._end = 0
        self._found: deque[tuple[int, _Image]] = deque()  # by number, from the window's start on

    def skip_to(self, image: int) -> None:
        """Go on with an image that does not follow; of windows of the whole pass those with a gap are not checked.

        Args:
            image: its number in the whole pass; that of the next one changes nothing.
        """
        if image == self._end:
            return
        self._start, self._end = -(-image // WINDOW) * WINDOW, image
        self._found.clear()

    def add(self, path: Path, errors: Errors) -> None:
        """Count the images of the next part in input order, which lies at ``path``.

        Raises:
            TooMany: a window is full and holds too many that are unreadable. The parts that hold them
                are deleted, so that they are measured again once the cause is mended.
        """
        found = ((self._end + place, (error, at, path)) for place, error, at in errors.found)
        self._found.extend(each for each in found if each[0] >= self._start)
        self._end += errors.images
        while self._end - self._start >= WINDOW:
            self._check(WINDOW)
            self._start += WINDOW

    def finish(self) -> None:
        """Check a pass that was shorter than a window; the rest of a longer one says little."""
        if not self._start:
            self._check(self._end)

    def _check(self, images: int) -> None:
        """A picture that is missing, or that was not fetched, is not a decoder's fault."""
        unread: list[_Image] = []
        while self._found and self._found[0][0] < self._start + images:
            unread.append(self._found.popleft()[1])
        rejected = [image for image in unread if not is_absent(image[0])]
        present = images - len(unread) + len(rejected)
        if len(rejected) <= self._limit * present:
            return
        for path in {path for *_, path in rejected}:
            path.unlink(missing_ok=True)
        counts = Counter(error for error, *_ in rejected).most_common(5)
        reasons = ", ".join(f"{error}: {count}" for error, count in counts)
        raise TooMany(
            f"{len(rejected)} of {present} images in a row are unreadable ({reasons}; the first is "
            f"{rejected[0][1]!r}), more than annotate.max_reject_rate={self._limit}; mend the input, or type "
            "annotate.max_reject_rate=1"
        )
