"""Compare two finished curations by their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from curate.decide.config import SIDES
from curate.report.diff import compare, ledgers, settings
from curate.report.diff.compare import Compared
from curate.report.diff.ledgers import Ledger
from curate.report.diff.results import SCHEMA_VERSION, Difference, Side
from curate.run.ledger import DROPPED, UNREADABLE
from curate.run.manifest import Manifest, read_funnel, read_manifest
from curate.run.next_command import named

_WORDS = {
    "sha256": "whether pictures were replaced or renamed",
    "split": "moves between the sides of the split",
    "source": "changes by source",
    "clip_similarity": "similarities",
    "clip_model": "whether similarities are of the same CLIP",
}
"""What cannot be compared without a column of the ledger."""


@dataclass(frozen=True)
class Found:
    """What a comparison found.

    Attributes:
        difference: all figures, as ``diff.json`` has them.
        pairs: every pair that changed, see ``compare.table``.
    """

    difference: Difference
    pairs: pd.DataFrame


@dataclass(frozen=True)
class _Run:
    folder: Path
    manifest: Manifest
    funnel: dict[str, Any]
    ledger: Ledger

    @classmethod
    def open(cls, curate_dir: Path) -> _Run:
        manifest, funnel = read_manifest(curate_dir), read_funnel(curate_dir)
        return cls(curate_dir, manifest, funnel, ledgers.read(curate_dir))

    @property
    def rules(self) -> list[dict[str, Any]]:
        return self.funnel.get("rules", [])


def compare_runs(before: Path, now: Path) -> Found:
    """What changed from one curation to another. Lock both for reading meanwhile.

    Args:
        before, now: the folders ``curate`` of two finished curations.

    Raises:
        FileNotFoundError: one is not finished; says what to type.
        UserError: a file is damaged, or of another version.
    """
    runs = (_Run.open(before), _Run.open(now))
    found = compare.compare(runs[0].ledger, runs[1].ledger)
    differing, versions = settings.settings(before, now)
    changed = compare.verdicts(found)
    difference = Difference(
        schema_version=SCHEMA_VERSION,
        before=_side(runs[0]),
        now=_side(runs[1]),
        changes=compare.changes(found),
        rules=compare.rules(found, runs[0].rules, runs[1].rules),
        sources=compare.sources(found),
        verdicts=changed,
        moves=compare.moves(found),
        settings=differing,
        fingerprints=settings.both(runs[0].manifest.fingerprint, runs[1].manifest.fingerprint),
        versions=versions,
        examples=compare.examples(found, changed),
        notes=tuple(_notes(runs, found)),
    )
    return Found(difference, compare.table(found))


def _side(run: _Run) -> Side:
    pairs, cut = run.ledger.pairs, run.funnel.get("cut", {})
    kept = pairs[pairs["kept"]]
    samples = kept.drop_duplicates("key")["split"].value_counts()
    return Side(
        name=run.folder.resolve().parent.name,
        folder=str(run.folder.parent),
        pairs=len(pairs),
        pictures=int(pairs["key"].nunique()),
        kept=len(kept),
        dropped=int((pairs["status"] == DROPPED).sum()),
        unreadable=int((pairs["status"] == UNREADABLE).sum()),
        samples={side: int(samples.get(side, 0)) for side in SIDES},
        clip=run.ledger.clip,
        cut=cut.get("similarity"),
        cut_by=cut.get("by", ""),
        shards=run.manifest.digest(),
        missing=run.ledger.missing,
    )


def _notes(runs: tuple[_Run, _Run], found: Compared) -> Iterator[str]:
    """What a reader must know to read the figures rightly."""
    if len(found.added) and len(found.gone) and not len(found.matches.now):
        yield "the runs have no pair in common: are they of the same data set?"
    yield from _clips(*(run.ledger.clip for run in runs))
    for run in runs:
        lacking = [what for name, what in _WORDS.items() if name in run.ledger.missing]
        if lacking:
            yield (
                f"not compared: {'; '.join(lacking)}, because the ledger of {run.folder.parent}, of an earlier "
                f"version, has no such columns"
            )
        if run.rules and compare.disagrees(run.ledger.pairs, run.rules):
            yield (
                f"keep rates of {run.folder.parent} are left out, because its funnel.json and its ledger disagree; "
                f"python -m curate.verify {named(run.folder.parent)} tells more"
            )
        elif not run.rules:
            yield f"keep rates of {run.folder.parent} are left out, because it has no funnel.json"
        if not settings.is_readable(run.folder):
            yield (
                f"settings are not compared, because {run.folder / 'config.yaml'} is missing or damaged"
            )


def _clips(before: str, now: str) -> Iterator[str]:
    if not (before and now) or before == now:
        return
    (one, two), (name, other) = (before, now), (_name(before), _name(now))
    if name == other:
        yield (
            f"similarities are of {name} with two fingerprints, {one.rpartition(' ')[2]} and {two.rpartition(' ')[2]}: "
            "its weights, precision, decoding or packages differ, so the same pair can have another similarity"
        )
    else:
        yield (
            f"similarities are of different CLIPs, {name} before and {other} now: they and their cuts are on different "
            "scales and must not be compared with each other"
        )


def _name(clip: str) -> str:
    """A CLIP without its fingerprint."""
    return clip.rpartition(" ")[0] or clip
