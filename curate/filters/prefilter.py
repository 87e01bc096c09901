"""The cheap rules, ahead of the expensive measures: what fails them need be neither decoded nor scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.filters import blocklist, caption, image
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.rule import Rule


@dataclass(frozen=True)
class Prefilter:
    """The rules that a header and a caption alone decide; the same rules apply again in ``decide``."""

    image: ImageFilterConfig
    caption: CaptionFilterConfig

    @cached_property
    def digest(self) -> str:
        """Changes whenever another pair may pass."""
        listed = blocklist.read(self.caption.blocklist) if self.caption.blocklist else []
        known = json.dumps(
            [asdict(self.image), asdict(self.caption), sorted(listed)], sort_keys=True
        )
        return hashlib.blake2b(known.encode(), digest_size=8).hexdigest()

    @cached_property
    def _caption_rules(self) -> list[Rule]:
        """Made once: a blocklist that changes meanwhile counts from the next run on, as in ``digest``."""
        return list(caption.rules(replace(self.caption, max_tokens=None)))

    def captions(self, captions: Sequence[str] | pd.Series) -> np.ndarray:
        """Mask (N,): True where a caption passes; an empty one does not."""
        frame = pd.DataFrame({"caption": pd.Series(captions, dtype="str")})
        return _passing(frame, self._caption_rules) & (frame["caption"] != "").to_numpy()

    def images(self, sizes: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """Mask (N,): True where (width px, height px, bytes) pass."""
        frame = pd.DataFrame(sizes, columns=["width", "height", "bytes"], dtype="int64")
        return _passing(frame, image.rules(self.image))

    def opens_for(self, part: Path) -> bool:
        """Whether a part holds a pair that was kept out and would pass now."""
        closed = pc.field("clip_similarity").is_null() & pc.field("has_caption")
        readable = pc.field("error") == ""
        columns = ["caption", "width", "height", "bytes"]
        held = pq.read_table(part, columns=columns, filters=closed & readable).to_pandas()
        return bool(self.lets_through(held).any())

    def lets_through(self, pairs: pd.DataFrame) -> np.ndarray:
        """Mask (N,) over rows with ``caption, width, height, bytes``."""
        return self.captions(pairs["caption"]) & _passing(pairs, image.rules(self.image))


def _passing(frame: pd.DataFrame, rules: Sequence[Rule]) -> np.ndarray:
    passing = np.ones(len(frame), bool)
    for rule in rules:
        passing &= ~rule.drops(frame).to_numpy(bool)
    return passing
