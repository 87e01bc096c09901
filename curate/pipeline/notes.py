"""What a user should know about a curation before going on with it."""

from __future__ import annotations

import math

from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.decide.config import LARGEST_SHARE, SMALLEST_JUDGED
from curate.decide.laion import LAION_CLIP
from curate.decide.stage import Verdicts
from curate.pipeline.config import CurateConfig

BLIND_BELOW = 0.6  # AUC of given against shuffled pairs; 0.5 is guessing
FEWEST_SCORED = 30  # pairs: the AUC of a guessing CLIP then spreads by 0.05 (sqrt(1 / 12 n))


def of(config: CurateConfig, verdicts: Verdicts) -> list[str]:
    """All notes on a run."""
    images = verdicts.ledger.query("kept").drop_duplicates("key")["split"].value_counts()
    return [
        *blind_clip(verdicts, config.clip),
        *few_held_out(int(images.get("val", 0)), int(images.sum())),
    ]


def blind_clip(verdicts: Verdicts, clip: ClipConfig) -> list[str]:
    """A CLIP that hardly tells these pairs from shuffled ones: its similarities say nothing."""
    separation = verdicts.separation()
    scored = int(verdicts.ledger["clip_similarity"].count())
    if separation is None or separation >= BLIND_BELOW or scored < FEWEST_SCORED:
        return []
    other = "" if label(clip) == LAION_CLIP else ", such as clip=vit_b32_openai"
    return [
        f"{clip.name} rates a given pair above a shuffled one in {separation:.0%} of cases, and guessing "
        "would in 50%, so that similarity is no reason to keep or drop one. Either it does not know such "
        f"pictures (take another one{other}), or the captions hardly differ (type filters=everything), or "
        "they do not belong to the pictures: look at the report"
    ]


def few_held_out(images: int, kept: int) -> list[str]:
    """Fewer held-out images than any verdict needs.

    Args:
        images: on the side ``val``.
        kept: on all sides.
    """
    if images >= SMALLEST_JUDGED:
        return []
    share = math.ceil(120 * SMALLEST_JUDGED / max(kept, 1)) / 100  # a fifth to spare
    more = f", or hold out more: split.val={share:.2g}" if share < LARGEST_SHARE else ""
    return [
        f"held out for judging: {images} images, and python -m evaluate needs {SMALLEST_JUDGED} for a "
        f"verdict; add pictures{more}"
    ]
