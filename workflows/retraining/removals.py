"""Pictures that were removed from any run of a series; later runs leave them out as well."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from curate.run.files import sync
from curate.run.removals import Removals, identities, read_removals, write_removals
from workflows.retraining.curations import Curation
from workflows.retraining.series import Series

_SETS = ("keys", "urls", "sha256")
SETTING = "removed pictures"  # what it is called among the settings that are compared


def of_series(series: Series) -> Removals:
    """All that was ever listed for removal from a run whose folder is there.

    A deleted run hands its removals on, since every run takes over those of all before it.

    Raises:
        UserError: a list is damaged.
    """
    found = [
        read_removals(curation.folder) for each in series.curations().values() for curation in each
    ]
    return _together(found)


def _together(found: Sequence[Removals]) -> Removals:
    sets = {
        name: frozenset[str]().union(*(getattr(each, name) for each in found)) for name in _SETS
    }
    records = tuple({str(record): record for each in found for record in each.records}.values())
    return replace(Removals(records=records), **sets)


def said(series: Series) -> dict[str, str]:
    """How many are listed, with a digest of the lists; nothing where none was ever removed."""
    found = of_series(series)
    listed = [f"{name} {item}" for name in _SETS for item in sorted(getattr(found, name))]
    if not listed:
        return {}
    digest = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    return {SETTING: f"{len(listed)} listed (digest {digest:.12})"}


def take_over(series: Series, run_dir: Path) -> None:
    """Write the removals of all runs into a run that is about to be curated."""
    found, curate_dir = of_series(series), run_dir / "curate"
    own = read_removals(curate_dir)
    if any(getattr(found, name) != getattr(own, name) for name in _SETS):
        curate_dir.mkdir(parents=True, exist_ok=True)
        write_removals(curate_dir, replace(found, pending=own.pending))
        sync(curate_dir)


def still_trained_on(series: Series, curations: Iterable[Curation]) -> int:
    """How many pictures of a run's curations it was trained on that were removed from other runs since."""
    found, keys = of_series(series), set[str]()
    for curation in curations:
        own = read_removals(curation.folder)
        if all(getattr(found, name) <= getattr(own, name) for name in _SETS):
            continue
        rows = identities(curation.folder)
        trained_on = rows[rows["kept"] & (rows["split"] == "train")]
        keys.update(trained_on.loc[found.drops(trained_on), "key"])
    return len(keys)


def are_handed_on(series: Series, run: str, to: str) -> bool:
    """Whether all that is listed for removal from a run is listed in a later one as well."""
    own, later = (
        _together([read_removals(curation.folder) for curation in series.curations()[each]])
        for each in (run, to)
    )
    return all(getattr(own, name) <= getattr(later, name) for name in _SETS)
