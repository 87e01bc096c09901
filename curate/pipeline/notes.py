"""Notes that warn of problems with a curation: a CLIP that cannot judge it, few held-out images."""

from __future__ import annotations

import math

from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.decide.config import LARGEST_SHARE, SMALLEST_JUDGED
from curate.decide.laion import LAION_CLIP
from curate.decide.stage import Verdicts
from curate.pipeline import own_part
from curate.pipeline.config import CurateConfig

BLIND_BELOW = 0.6  # AUC of the pairs against shuffled captions; 0.5 is guessing
FEWEST_SCORED = (
    30  # pairs; a guessing CLIP's AUC then has a standard deviation of 0.05, sqrt(1 / 12 n)
)


def of(config: CurateConfig, verdicts: Verdicts) -> list[str]:
    """All notes on a run."""
    images = verdicts.ledger.query("kept").drop_duplicates("key")["split"].value_counts()
    return [
        *own_part.note(config.dataset),
        *blind_clip(verdicts, config.clip),
        *(few_held_out(int(images.get("val", 0)), int(images.sum())) if len(images) else ()),
    ]


def blind_clip(verdicts: Verdicts, clip: ClipConfig) -> list[str]:
    """A note if CLIP scores the pairs hardly above shuffled captions: then similarity means nothing."""
    separation = verdicts.separation()
    scored = int(verdicts.ledger["clip_similarity"].count())
    if separation is None or separation >= BLIND_BELOW or scored < FEWEST_SCORED:
        return []
    other = "" if label(clip) == LAION_CLIP else ", such as clip=vit_b32_openai"
    return [
        f"{clip.name} scores a pair above a shuffled one in {separation:.0%} of cases (guessing: 50%), so "
        "similarity is no reason to keep or drop a pair. Either this CLIP does not know such images "
        f"(choose another{other}), or the captions hardly differ (type filters=everything), or they do "
        "not belong to the images: look at the report"
    ]


def few_held_out(images: int, kept: int) -> list[str]:
    """A note if fewer images are held out than an evaluation needs for a verdict.

    Args:
        images: kept images in ``val``.
        kept: kept images in all splits.
    """
    if images >= SMALLEST_JUDGED:
        return []
    share = math.ceil(120 * SMALLEST_JUDGED / max(kept, 1)) / 100  # with a margin of a fifth
    more = f", or hold out more: split.val={share:.2g}" if share < LARGEST_SHARE else ""
    return [
        f"held out for judging: {images} images, but python -m evaluate needs {SMALLEST_JUDGED} for a "
        f"verdict; add images{more}"
    ]
