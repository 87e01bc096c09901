"""Whether enough groups of pictures are held out for a verdict, and what to do where there are not."""

from __future__ import annotations

import math

from curate.decide.config import LARGEST_SHARE, SMALLEST_JUDGED


def too_few(groups: int, kept: int, section: str = "") -> str:
    """A sentence if fewer groups are held out than an evaluation needs for a verdict; else "".

    Args:
        groups: of kept images in ``val``.
        kept: groups of kept images in all splits.
        section: what stands before the key, such as ``curate.`` for a retraining.
    """
    if groups >= SMALLEST_JUDGED:
        return ""
    share = math.ceil(120 * SMALLEST_JUDGED / max(kept, 1)) / 100  # with a margin of a fifth
    more = f", or hold out more: {section}split.val={share:.2g}" if share < LARGEST_SHARE else ""
    return (
        f"held out for judging: {groups} groups of images, but python -m evaluate needs {SMALLEST_JUDGED} for "
        f"a verdict; add images{more}"
    )
