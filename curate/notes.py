"""What a user should know about a curation before going on with it."""

from __future__ import annotations

from curate.config import SMALLEST_JUDGED, ClipConfig, ClipSimilarityConfig, CurateConfig
from curate.decide import Verdicts

LAION_CUTS = (0.28, 0.30)  # of LAION-2B-en and LAION-400M
LAION_CLIP = ("ViT-B-32-quickgelu", "openai")  # the model both were cut with
BLIND_BELOW = 0.6  # AUC of given against shuffled pairs; 0.5 is guessing


def of(config: CurateConfig, verdicts: Verdicts) -> list[str]:
    """All notes on a run."""
    held_out = verdicts.ledger.query("kept and split == 'val'")["key"].nunique()
    return [
        *foreign_cut(config.filters.clip_similarity, config.clip),
        *blind_clip(verdicts.separation(), config.clip),
        *few_held_out(held_out),
    ]


def foreign_cut(similarity: ClipSimilarityConfig, clip: ClipConfig) -> list[str]:
    """LAION's cut on a CLIP that it was not made for; similarities do not compare."""
    if similarity.minimum not in LAION_CUTS or (clip.name, clip.pretrained) == LAION_CLIP:
        return []
    return [
        f"filters.clip_similarity.minimum={similarity.minimum:g} is LAION's cut and belongs to "
        f"clip=vit_b32_openai, not to {clip.name}; filters=default with its "
        "filters.clip_similarity.false_keep_rate fits any CLIP"
    ]


def blind_clip(separation: float | None, clip: ClipConfig) -> list[str]:
    """A CLIP that hardly tells these pairs from shuffled ones: whatever it keeps is chance."""
    if separation is None or separation >= BLIND_BELOW:
        return []
    return [
        f"{clip.name} rates a given pair above a shuffled one in {separation:.0%} of cases, and guessing "
        "would in 50%: either it does not know such pictures, or the captions do not belong to them. Look "
        "at the report; take another CLIP, such as clip=vit_b32_openai, or filters=none to keep all"
    ]


def few_held_out(images: int) -> list[str]:
    """Fewer held-out images than any verdict needs."""
    if images >= SMALLEST_JUDGED:
        return []
    return [
        f"held out for judging: {images}, and a verdict needs {SMALLEST_JUDGED} images. Training will work, "
        "python -m evaluate will not decide; add pictures, or hold out more, as with split.val=0.3"
    ]
