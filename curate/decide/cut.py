"""Choose the cut on similarity from the settings, and refuse one that was made for another CLIP.

A ``minimum`` that was made for another CLIP is refused, with the cut that is as strict for this one.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.decide.laion import LAION_CLIP, LAION_CUTS, LAION_FALSE_KEEP
from curate.filters.similarity import ClipSimilarityConfig
from curate.run.config import DRY_RUN
from curate.run.schema import UserError

if TYPE_CHECKING:
    import numpy as np

    from curate.decide.scored_pairs import LimitsOf
    from curate.decide.shuffled_captions import Null

# LAION's share lets three of them pass; with fewer, the cut would be the highest one.
FEWEST_SHUFFLED = 2_000

UNCALIBRATED = "no image has a caption of another to be compared with, nothing to calibrate on"

FEWEST_SCORED = 30  # pairs; the AUC of a CLIP that guesses then has a standard error of 0.05

BLIND_BELOW = 0.6  # AUC of the pairs against shuffled captions; 0.5 is guessing


@dataclass(frozen=True, slots=True)
class Threshold:
    """The lowest similarity to keep, and where it comes from.

    Attributes:
        value: a cosine; None where no absolute cut is configured, or none can be calibrated.
        provenance: the setting that it comes from, for the ledger's readers.
    """

    value: float | None
    provenance: str


def is_blind(separation: float | None, pairs: int) -> bool:
    """Whether a CLIP hardly tells pairs from shuffled captions, so that a similarity is no reason to drop one.

    Args:
        separation: AUC of the pairs against shuffled captions, see ``Null.separation``; None: unknown.
        pairs: how many.
    """
    return separation is not None and separation < least_separation(pairs)


def is_called_blind(separation: float | None, pairs: int) -> bool:
    """As ``is_blind``, of so many pairs that it may be said of the CLIP; fewer just prove nothing."""
    return pairs >= FEWEST_SCORED and is_blind(separation, pairs)


def least_separation(pairs: int) -> float:
    """The AUC that tells a CLIP from one that guesses; 1 for no pairs.

    The AUC of N pairs that are as similar as shuffled ones has a standard error of sqrt(1 / 12 N), that of the
    mean of N uniform ranks; so few pairs need a higher one (one-sided, 95 %).
    """
    return min(1.0, max(BLIND_BELOW, 0.5 + 1.645 / math.sqrt(12 * max(pairs, 1))))


def threshold_of(
    config: ClipSimilarityConfig, null: Null, own: np.ndarray, times: np.ndarray | None = None
) -> Threshold:
    """The threshold that the settings give.

    A calibrated cut of a CLIP that cannot tell right from wrong would drop right pairs as readily as wrong
    ones: there is none then.

    Args:
        config: the settings.
        null: the similarities of shuffled captions.
        own: those of the pairs, (N,).
        times: how many pairs have each, (N,) int64; None for one.
    """
    if config.minimum is not None:
        return Threshold(config.minimum, f"minimum={config.minimum:g}")
    if config.fraction is not None:
        return Threshold(None, f"fraction={config.fraction:g}")
    if config.false_keep_rate is None:
        return Threshold(None, "no cut")
    cut = null.cut(config.false_keep_rate)
    provenance = f"false_keep_rate={config.false_keep_rate:g}"
    separation = null.separation(own, times)
    if is_blind(separation, len(own) if times is None else int(times.sum())):
        return Threshold(
            None, f"{provenance}: no cut, this CLIP cannot tell these pairs from shuffled ones"
        )
    return Threshold(cut, provenance if cut is not None else f"{provenance}: {UNCALIBRATED}")


def check(
    similarity: ClipSimilarityConfig,
    clip: ClipConfig,
    run_dir: Path,
    limits: LimitsOf,
) -> None:
    """Refuse a cut that belongs to another CLIP; similarities of two CLIPs do not compare.

    A cut belongs to ``filters.clip_similarity.made_for``; 0.28 and 0.30 without it are LAION's.

    Args:
        similarity: the rule's settings.
        clip: the run's.
        run_dir: the run's folder.
        limits: of queries on what is scored there, as ``scored_pairs.scored`` takes them.

    Raises:
        UserError: says how strict the cut is for this CLIP, if the run's folder has scored pairs, and
            what to type.
    """
    here = label(clip)
    owner = similarity.made_for or (LAION_CLIP if similarity.minimum in LAION_CUTS else here)
    if similarity.minimum is None or owner == here:
        return
    raise UserError(
        f"filters.clip_similarity.minimum={similarity.minimum:g} was made for {owner}, and this run's "
        f"CLIP is {here}: similarities of two CLIPs do not compare. "
        f"{_equivalent(run_dir, similarity.minimum, owner, here, limits)}. For a cut that fits any "
        "CLIP type filters=default, or filters.clip_similarity.minimum=null with "
        f"filters.clip_similarity.false_keep_rate=0.1; to insist, type {claim(here)}"
    )


def claim(clip: str) -> str:
    """What to type to say that ``minimum`` belongs to the CLIP with this label, see ``clip.models.label``."""
    return shlex.quote(f"filters.clip_similarity.made_for={clip}")


def _equivalent(run_dir: Path, minimum: float, owner: str, here: str, limits: LimitsOf) -> str:
    """One sentence: the equally strict cut for this CLIP, or how to find it."""
    from curate.decide.scored_pairs import scored

    for folder in (run_dir, run_dir / DRY_RUN):
        pairs = scored(folder / "curate", here, limits)
        if pairs is None or not len((null := pairs.null()).similarities):
            continue
        lets = f"Here it lets {null.false_keep_rate(minimum):.2%} of shuffled captions pass"
        if owner != LAION_CLIP or minimum not in LAION_CUTS:
            return f"{lets}; python -m curate.calibrate {shlex.quote(str(folder))} says more"
        if len(null.similarities) < FEWEST_SHUFFLED:
            return (
                f"{lets}, by {len(null.similarities):,} shuffled captions of {folder}: too few to find a cut as "
                "strict as LAION's; a run or a dry_run on a few thousand pairs has enough"
            )
        cut = null.cut(LAION_FALSE_KEEP)
        return (
            f"{lets}; as strict as LAION's is a cut of at least {cut:.4f}, by "
            f"{len(null.similarities):,} shuffled captions of {folder}: type "
            f"filters.clip_similarity.minimum={cut:.4f} {claim(here)}"
        )
    return (
        "To find a cut that is as strict here, score pairs first (type filters=default, with dry_run=500 "
        "for a trial), then run python -m curate.calibrate"
    )
