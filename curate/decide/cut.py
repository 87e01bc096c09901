"""Whose cut it is: a ``minimum`` made for another CLIP is refused, with what it would be for this one."""

from __future__ import annotations

import shlex
from pathlib import Path

from curate.clip import scorer as clip
from curate.pipeline.config import CurateConfig
from curate.run.cli import UserError

LAION_CUTS = (0.28, 0.30)  # of LAION-2B-en and LAION-400M
LAION_CLIP = "ViT-B-32-quickgelu openai"  # the model both were cut with

LAION_FALSE_KEEP = 0.0015
"""The share of wrong captions that pass LAION's cuts with LAION's CLIP, at most (95 %).

Of 8,421 cosines of OpenAI's ViT-B/32 (the 7 test photographs of rom1504/clip-retrieval x the 1,203
LVIS class names that Detic encoded as "a {name}") none reaches 0.28; the highest is 0.2651, a
kitten's with "a kitten". The names that pass a cut crowd on few photographs: at 0.24 and 0.25 their
counts vary two to four times as much between photographs as independent pairs' would, so that the
8,421 are worth about 2,100, and zero of 2,100 means less than 3 / 2,100 (rule of three).

It is an upper bound, so that what it gives for another CLIP is the least that is as strict. And it
is one for names, of seven photographs: web alt texts are longer and their cosines spread wider, so
that more of them may pass. Scores of the same pairs by both CLIPs (``python -m curate.calibrate RUN
--like RUN2``) know better.
"""

FEWEST_SHUFFLED = (
    2_000  # three of which LAION's share lets pass; of fewer the cut is the highest alone
)


def check(config: CurateConfig) -> None:
    """Refuse a cut that belongs to another CLIP; similarities of two CLIPs do not compare.

    A cut belongs to ``filters.clip_similarity.made_for``; 0.28 and 0.30 without it are LAION's.

    Raises:
        UserError: says how strict a cut is here as far as the run's folder can tell, and what to type.
    """
    similarity = config.filters.clip_similarity
    here = clip.label(config.clip)
    owner = similarity.made_for or (LAION_CLIP if similarity.minimum in LAION_CUTS else here)
    if similarity.minimum is None or owner == here:
        return
    raise UserError(
        f"filters.clip_similarity.minimum={similarity.minimum:g} was made for {owner}, and this run's "
        f"CLIP is {here}: similarities of two CLIPs do not compare. "
        f"{_equivalent(config.run.folder, similarity.minimum, owner, here)}. For a cut that fits any "
        "CLIP type filters=default, or filters.clip_similarity.minimum=null with "
        f"filters.clip_similarity.false_keep_rate=0.1; to insist, type {claim(here)}"
    )


def claim(label: str) -> str:
    """What to type to say that ``minimum`` belongs to the CLIP with this label."""
    return shlex.quote(f"filters.clip_similarity.made_for={label}")


def _equivalent(run_dir: Path, minimum: float, owner: str, here: str) -> str:
    """One sentence: what the cut is for this CLIP, or how to find out."""
    from curate import calibrate
    from curate.pipeline import trial as dry_run

    for folder in (run_dir, run_dir / dry_run.FOLDER):
        pairs = calibrate.scored(folder / "curate", here)
        if pairs is None or not len((null := pairs.null()).similarities):
            continue
        lets = f"Here it lets {null.false_keep_rate(minimum):.2%} of shuffled captions pass"
        if owner != LAION_CLIP or minimum not in LAION_CUTS:
            return f"{lets}; python -m curate.calibrate {shlex.quote(str(folder))} says more"
        if len(null.similarities) < FEWEST_SHUFFLED:
            return (
                f"{lets}, of {len(null.similarities):,} of {folder}: too few to tell what is as strict as "
                "LAION's; a run or a dry_run on some thousand pairs tells"
            )
        cut = null.cut(LAION_FALSE_KEEP)
        return (
            f"{lets}; as strict as LAION's is a cut of at least {cut:.4f}, by "
            f"{len(null.similarities):,} shuffled captions of {folder}: type "
            f"filters.clip_similarity.minimum={cut:.4f} {claim(here)}"
        )
    return (
        "What is as strict here python -m curate.calibrate says, once a run has scored pairs: "
        "type filters=default, with dry_run=500 for a trial"
    )
