"""That several data sets stay apart: no picture is trained on in one of them and held out in another.

The table of held-out pictures of the series says so to each curation, but one that is made early cannot know what a
later one holds out. It is then made again, which measures nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from curate.decide.config import HELD_OUT
from curate.run import ledger
from curate.run.schema import UserError
from workflows.retraining.curations import Curation

if TYPE_CHECKING:
    import pandas as pd

    from workflows.retraining.job import Job

_KNOWN_BY = ("sha256", "duplicate_group")  # as finetune.joined compares two curations


def in_turn(job: Job) -> Iterator[Curation]:
    """Each curation of a run, all of them again where pictures were removed meanwhile, and those that overlap.

    Raises:
        UserError: two data sets have equal keys; says which. The next start curates them again.
    """
    waiting, rounds = job.curations, len(job.curations)
    while waiting:
        each, *waiting = waiting
        yield each
        if each.step not in job.record.steps:
            waiting = job.curations
        elif not waiting and rounds:
            rounds -= 1
            waiting = _again(job)


def _again(job: Job) -> list[Curation]:
    """Of several, those that train on what another one held out after them; they are forgotten."""
    if len(job.curations) == 1 or "finetune" in job.record.steps:
        return []
    rows = [_identities(each) for each in job.curations]
    try:
        refuse_equal_keys(job.curations, rows)
    except UserError:
        job.forget([each.step for each in job.curations])
        raise
    found = overlapping(job.curations, rows)
    if found:
        print("again     what one data set holds out leaves the others", flush=True)
        job.forget([each.step for each in found])
    return found


def _identities(curation: Curation) -> pd.DataFrame:
    """``key, sha256, duplicate_group, split`` of the pictures that a curation keeps."""
    names = ["key", *_KNOWN_BY, "split"]
    return ledger.read(curation.folder, names, [("kept", "==", True)])[names].drop_duplicates("key")


def refuse_equal_keys(curations: Sequence[Curation], rows: Sequence[pd.DataFrame]) -> None:
    """Refuse two data sets of which nothing tells some pictures apart, before a training does.

    Args:
        curations: of the data sets. rows: of each, see :func:`_identities`.
    """
    for (one, first), (other, second) in combinations(zip(curations, rows, strict=True), 2):
        if shared := sorted({*first["key"]} & {*second["key"]}):
            raise UserError(
                f"the data sets {one.dataset} and {other.dataset} have {len(shared):,} equal keys, such as {shared[0]}, so that "
                "nothing tells their pictures apart. Rename the files of one, or give one data set all of them"
            )


def overlapping(curations: Sequence[Curation], rows: Sequence[pd.DataFrame]) -> list[Curation]:
    """Those that train on a picture, or on a group of copies, that another one holds out."""
    found = []
    for place, own in enumerate(rows):
        train = own[~own["split"].isin(HELD_OUT)]
        held_out = [each[each["split"].isin(HELD_OUT)] for n, each in enumerate(rows) if n != place]
        if any(_share(train, each) for each in held_out):
            found.append(curations[place])
    return found


def _share(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return any(({*one[name]} & {*other[name]}) - {""} for name in _KNOWN_BY)
