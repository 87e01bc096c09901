"""Write the shards of a data set that are not there yet; no step holds the rows of more than a few shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.pack.config import ShardsConfig
from curate.pack.images import ImageChanged, extension_of
from curate.pack.numbering import numbered, plan
from curate.pack.plan import Plan, Planned
from curate.pack.shard_tasks import Changed, Checked, Encoding, Load, Some
from curate.pack.sorting import SHARDS_PER_FILE, SortedRows, sort_rows
from curate.run import ledger
from curate.run.engine.tasks import Engine, WorkerSpec, values
from curate.run.ledger_table import LedgerTable
from curate.run.manifest import ShardInfo
from curate.run.progress import Bar, count_done


@dataclass(frozen=True, slots=True)
class Packed:
    """The shards of a data set, in order: as planned, as written, and the extension of their images."""

    planned: Planned
    plans: list[Plan]
    shards: list[ShardInfo]
    extension: str


def write_shards(
    curate_dir: Path,
    table: LedgerTable,
    parts: Sequence[Path],
    config: ShardsConfig,
    engine: Engine,
    load: Load,
    threads: int,
    before_change: Callable[[bool], None],
    prefix: str = "",
) -> Packed:
    """Write the shards of the kept rows of a ledger that are not there yet.

    Outdated shards stay: ``plan.remove_stale`` deletes them.

    Args:
        curate_dir: the run's ``curate`` folder; working files go to its ``tasks/samples``.
        table: all pairs with their verdicts.
        parts: the files of ``table``.
        config: the keys ``shards.*``.
        engine: carries out the tasks.
        load: reads an image of the source, see ``Source.load``; pickled where workers are other processes.
        threads: of each worker that encode images.
        before_change: called once, before the first shard is written, with whether one of them replaces
            another of its name. It has to remove the old manifest, which would describe shards that no longer exist.
        prefix: of the tars' names.

    Raises:
        ImageChanged: an image has changed or cannot be read any more since it was measured.
        TasksFailed: a shard could not be written; the others are.
    """
    encoding = Encoding(extension_of(config.image_format, _formats(table)), config.jpeg_quality)
    rows = SortedRows(curate_dir / "tasks" / "samples", config.order)
    with numbered(table, config.order) as number:
        planned = plan(table, number, config, prefix)
        sort_rows(table, ledger.schema(parts[0]), number, planned, rows)
    plans = planned.plans()
    about = {"curate_dir": curate_dir, "rows": rows, "encoding": encoding}
    found = _check(plans, engine, about)
    about |= {"load": load, "threads": threads}
    shards = _write(found, engine, about, before_change)
    shutil.rmtree(rows.folder)
    return Packed(planned, plans, [shards[each.place] for each in plans], encoding.extension)


def _formats(table: LedgerTable) -> set[str]:
    """Those of the kept images' files."""
    return set(table.frame("SELECT DISTINCT format FROM ledger WHERE kept")["format"])


def _check(plans: list[Plan], engine: Engine, about: dict[str, Any]) -> list[Checked]:
    by_place = sorted(plans, key=lambda planned: planned.place)
    tasks = [
        Some(by_place[first : first + SHARDS_PER_FILE])
        for first in range(0, len(by_place), SHARDS_PER_FILE)
    ]
    spec = WorkerSpec("curate.pack.shard_tasks:checking", about)
    return [each for some in values(engine.map(spec, tasks), "checking shards") for each in some]


def _write(
    found: list[Checked],
    engine: Engine,
    about: dict[str, Any],
    before_change: Callable[[bool], None],
) -> dict[int, ShardInfo]:
    """All shards by place."""
    shards = {each.planned.place: each.written for each in found if each.written is not None}
    wanted = [each for each in found if each.written is None]
    wanted.sort(key=lambda each: each.planned.place)
    if not wanted:
        return shards
    before_change(any(each.outdated for each in wanted))
    spec = WorkerSpec("curate.pack.shard_tasks:writing", about)
    changed: list[Changed] = []
    place_of = {each.planned.path: each.planned.place for each in wanted}
    with Bar(total=sum(each.planned.samples for each in found), desc="shards", unit="img") as bar:
        count_done(bar, sum(shard.samples for shard in shards.values()))
        for outcome in values(engine.map(spec, wanted, bar.update), "writing shards"):
            if isinstance(outcome, Changed):
                changed.append(outcome)
            else:
                shards[place_of[outcome.path]] = outcome
    if changed:
        first = min(changed, key=lambda each: each.place)
        raise ImageChanged(first.key, first.how)
    return shards
