"""The cheap rules, applied before the expensive measures: what fails them is neither decoded nor scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from curate.filters import blocklist, caption, image
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.rule import Rule


@dataclass(frozen=True)
class Prefilter:
    """The rules that an image's header and a caption alone decide; ``decide`` applies them again."""

    image: ImageFilterConfig
    caption: CaptionFilterConfig

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change whenever another pair may pass."""
        listed = blocklist.read(self.caption.blocklist) if self.caption.blocklist else []
        rules = json.dumps(
            [asdict(self.image), asdict(self.caption), sorted(listed)], sort_keys=True
        )
        return hashlib.blake2b(rules.encode(), digest_size=8).hexdigest()

    @cached_property
    def _caption_rules(self) -> list[Rule]:
        """Made once: a change of the blocklist's file counts from the next run on, as in ``digest``."""
        return list(caption.rules(replace(self.caption, max_tokens=None)))

    def passes_captions(self, captions: Sequence[str] | pd.Series) -> np.ndarray:
        """Mask (N,): True where a caption passes; an empty one does not."""
        frame = pd.DataFrame({"caption": pd.Series(captions, dtype="str")})
        return _passing(frame, self._caption_rules) & (frame["caption"] != "").to_numpy()

    def passes_images(self, sizes: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """Mask (N,): True where (width px, height px, bytes) pass."""
        frame = pd.DataFrame(sizes, columns=["width", "height", "bytes"], dtype="int64")
        return _passing(frame, image.rules(self.image))

    def passes(self, pairs: pd.DataFrame) -> np.ndarray:
        """Mask (N,) over rows with ``caption, width, height, bytes``: True where both pass."""
        return self.passes_captions(pairs["caption"]) & _passing(pairs, image.rules(self.image))


def _passing(frame: pd.DataFrame, rules: Sequence[Rule]) -> np.ndarray:
    passing = np.ones(len(frame), bool)
    for rule in rules:
        passing &= ~rule.drops(frame).to_numpy(bool)
    return passing
