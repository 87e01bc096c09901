"""The command ``python -m curate.calibrate``: what a similarity means for the CLIP of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.decide.laion import LAION_CLIP, LAION_CUTS, LAION_FALSE_KEEP
from curate.decide.scored_pairs import Scored, scored
from curate.run import cli, folder
from curate.run.provenance import curate_command
from curate.run.schema import UserError, check

if TYPE_CHECKING:
    import numpy as np

    from curate.decide.shuffled_captions import Null

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
FEWEST_BEYOND = 10  # shuffled pairs above a quantile, below which it is not shown
FALSE_KEEP_RATE = 0.05


def main() -> None:
    """Print the null, the separation and the cuts."""
    parser = folder.parser("calibrate", __doc__.partition(": ")[2] if __doc__ else "")
    parser.add_argument(
        "--cut", type=float, action="append", metavar="C",
        help="a similarity by RUN's CLIP, or with --like by RUN2's; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--false-keep-rate", type=float, metavar="R", default=FALSE_KEEP_RATE,
        help="the share of shuffled captions that the cut may keep (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--like", metavar="RUN2", help="a run with the same pairs scored by another CLIP"
    )
    asked = parser.parse_args()
    for cut in asked.cut or ():
        check(-1 <= cut <= 1, "--cut", cut, "a cosine, -1 ... 1")
    rate = asked.false_keep_rate
    check(0 < rate <= 1, "--false-keep-rate", rate, "a share above 0, up to 1")
    here = _of_run(asked.run)
    for line in lines(here, asked.cut or (), rate, bool(asked.like)):
        print(line)
    if asked.like:
        for line in compared(here, _of_run(asked.like), asked.cut or ()):
            print(line)


def _of_run(run: str) -> Scored:
    curate_dir = folder.curate_dir(run)
    found = scored(curate_dir)
    if found is None:
        raise FileNotFoundError(
            f"{curate_dir} holds no scored pairs; type: {curate_command(curate_dir.parent)}"
        )
    return found


def lines(
    here: Scored, cuts: tuple[float, ...] | list[float], rate: float, other: bool
) -> Iterator[str]:
    """The report of one run about its CLIP.

    Args:
        here: the run.
        cuts: similarities to describe; by the other run's CLIP if there is one.
        rate: the false-keep rate for which a cut is computed.
        other: whether another run follows, to whose CLIP ``cuts`` belong.
    """
    null = here.null()
    values = null.similarities
    yield f"CLIP: {here.clip}"
    yield f"pairs: {len(here.own):,}, mean similarity {here.own.mean():.4f}"
    if not len(values):
        yield "shuffled captions: none, as no image can be paired with a caption of another"
        return
    yield (
        f"shuffled captions (the null): {len(values):,}, mean {values.mean(dtype=float):.4f}, "
        f"standard deviation {values.std(dtype=float):.4f}"
    )
    yield f"  quantiles: {', '.join(_quantiles(values))}"
    separation = null.separation(here.own) or 0.0
    yield f"separation (AUC): {separation:.1%} of the pairs are more similar than a shuffled one; guessing gives 50%"
    for cut in () if other else cuts:
        yield (
            f"cut {cut:g}: keeps {null.false_keep_rate(cut):.2%} of shuffled captions and "
            f"{here.kept(cut):.1%} of the pairs"
        )
    cut = null.cut(rate) or 0.0
    yield f"false-keep rate {rate:g}: a cut of {cut:.4f}, which keeps {here.kept(cut):.1%} of the pairs"
    yield _as_strict_as_laion(here, null)


def _as_strict_as_laion(here: Scored, null: Null) -> str:

    if here.clip == LAION_CLIP:
        return "LAION's cuts: 0.28 and 0.30 belong to this CLIP"
    cut = null.cut(LAION_FALSE_KEEP) or 0.0
    return (
        f"LAION's cuts: 0.28 keeps {LAION_FALSE_KEEP:.2%} of wrong names with "
        f"{LAION_CLIP} at most; as strict here is {cut:.4f} or more, which keeps "
        f"{here.kept(cut):.1%} of the pairs or fewer; --like RUN2, a run by that CLIP, is more precise"
    )


def _quantiles(values: np.ndarray) -> Iterator[str]:
    import numpy as np

    for share in QUANTILES:
        if (1 - share) * len(values) >= FEWEST_BEYOND or share == QUANTILES[0]:
            yield f"{share:.1%} {np.quantile(values, share):.4f}"


def compared(here: Scored, there: Scored, cuts: tuple[float, ...] | list[float]) -> Iterator[str]:
    """The other CLIP's cuts converted to this one, by the pairs that both scored.

    Raises:
        UserError: the runs have no pair in common.
    """

    here, there = _common(here, there), _common(there, here)
    null, other = here.null(), there.null()
    yield f"by {len(here.own):,} pairs that {there.clip} scored too:"
    for cut in cuts or LAION_CUTS:
        share, rate = there.kept(cut), other.false_keep_rate(cut)
        by_share = here.cut_keeping(share)
        kept = "none" if by_share is None else f"{by_share:.4f}"
        yield f"  its {cut:g} keeps {share:.1%} of them, as does a cut of {kept} here"
        if rate is not None and (by_null := null.cut(rate)) is not None:
            least = "" if rate else " or more"
            yield f"    and {rate:.2%} of shuffled captions, as does {by_null:.4f}{least}"


def _common(one: Scored, two: Scored) -> Scored:
    """The pairs of ``one`` that ``two`` has as well."""
    common = one.common(two)
    if not len(common.own):
        raise UserError("the two runs share no pair; --like RUN2 needs the same data set")
    return common


if __name__ == "__main__":
    cli.run(main)
