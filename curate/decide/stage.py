"""Decide: a verdict and a reason for each pair, from its annotations alone; no image, no model.

Tasks make narrow tables of the annotations and judge each row by itself, see ``narrow``. What compares rows is asked
of a database that holds the narrow tables: copies, siblings, the rules on the data set, the split. Then tasks write
the ledger, see ``ledger_parts``. So no step holds all rows, and what is decided depends neither on the engine nor on
the memory, nor on where parts end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.annotate.layout import Layout
from curate.annotate.spec import AnnotationSpec
from curate.clip.config import HeadConfig
from curate.decide import duplicates, frozen, leaks, ledger_parts, narrow, siblings, split
from curate.decide.config import SplitConfig
from curate.decide.cut import threshold_of
from curate.decide.frozen import Frozen, HeldOutAgain
from curate.decide.judgement import Judgement
from curate.decide.leaks import Leaks
from curate.decide.narrow import NarrowTask, Seen
from curate.decide.near import Crowds
from curate.decide.shuffled_captions import Null, shuffled
from curate.decide.similarities import Similarities
from curate.decide.tables import TABLES, create_views
from curate.filters import blocklist
from curate.filters.columns import Bound, Exactness
from curate.filters.config import FiltersConfig
from curate.filters.rule import Reason
from curate.filters.similarity import NAME as SIMILARITY
from curate.run import ledger
from curate.run.database import Limits, connect
from curate.run.engine.tasks import Engine, WorkerSpec, values
from curate.run.ledger_table import LedgerTable, ledger_table
from curate.run.removals import Removals

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The outcome for all pairs.

    Attributes:
        ledger: one row per input pair in input order, with an empty ``shard``.
        steps: (rule, pairs it dropped), in the order of the rules; "unreadable" first.
        cut: the lowest similarity that the rule on similarity keeps, None where there is no such rule.
        cut_by: the provenance of the cut: the setting that it comes from.
        null: similarities of shuffled captions.
        leaks: siblings that are left across the sides.
        loosened: see ``siblings.Siblings``.
        held_out_again: what became of the pictures of ``split.held_out``; None where it names no table.
        crowds: what the searches for copies did not compare with one another.
    """

    ledger: LedgerTable
    steps: list[tuple[str, int]]
    cut: float | None
    cut_by: str
    null: Null
    leaks: Leaks = field(default_factory=Leaks)
    loosened: int = 0
    held_out_again: HeldOutAgain | None = None
    crowds: Crowds = field(default_factory=Crowds)

    def separation(self) -> float | None:
        """AUC of the pairs as given against shuffled ones; see `shuffled_captions.Null.separation`."""
        own = Similarities.of(self.ledger)
        return self.null.separation(own.values, own.times)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the verdicts depend on, but for the annotations."""

    spec: AnnotationSpec
    heads: Mapping[str, HeadConfig]
    filters: FiltersConfig
    sides: SplitConfig
    removals: Removals
    held_out: pd.DataFrame | None


@dataclass(frozen=True, slots=True)
class _Decided:
    """What was decided.

    Attributes:
        files: of ``ledger_parts.VERDICTS``, from which the ledger is written.
        reasons: by code.
        verdicts: gives all that was decided, once there is a ledger.
    """

    files: list[Path]
    reasons: list[Reason]
    verdicts: Callable[[LedgerTable], Verdicts]


@contextmanager
def judge(
    parts: Sequence[Path],
    spec: AnnotationSpec,
    heads: Mapping[str, HeadConfig],
    filters: FiltersConfig,
    sides: SplitConfig,
    removals: Removals,
    held_out: pd.DataFrame | None = None,
    *,
    engine: Engine,
    folder: Path,
    limits: Limits,
) -> Iterator[Verdicts]:
    """The verdicts on all pairs of ``parts``, whose ledger can be asked inside of the block.

    Args:
        parts: of the annotations, in input order.
        spec: what was measured; columns beyond it are left out.
        heads: small models on the embeddings, by name; each fills the column ``head_<name>``.
        filters: the rules.
        sides: the shares to hold out.
        removals: what was removed from this run for good; dropped before any rule.
        held_out: the table that ``sides.held_out`` names, see ``held_out.named_in``; None for none.
        engine: carries out what is done part by part.
        folder: for working files, in folders of their own: ``ledger/part-*.parquet`` and others.
        limits: of the database.

    Raises:
        UserError: a head cannot be read, or belongs to another CLIP; a rule cannot be applied; or a part is
            damaged.
        TasksFailed: a task failed for another reason.
    """
    asked = _Asked(_portable(spec), heads, _with_blocklist(filters), sides, removals, held_out)
    layout = Layout.of(parts)
    tasks, seen = _narrow(asked, parts, layout, engine, folder / "narrow")
    with connect(limits) as connection:
        files = {name: [task.file(folder / "narrow", name) for task in tasks] for name in TABLES}
        create_views(connection, files)
        embedded = Embeddings(parts, spec.stored, layout.rows)
        decided = _decide(connection, asked, embedded, parts, seen, engine, folder)
    written = _write_ledger(asked, decided, parts, layout, tasks, engine, folder)
    with ledger_table(written, limits) as table:
        yield decided.verdicts(table)


def _write_ledger(
    asked: _Asked,
    decided: _Decided,
    parts: Sequence[Path],
    layout: Layout,
    narrowed: Sequence[NarrowTask],
    engine: Engine,
    folder: Path,
) -> list[Path]:
    """Write the parts of the ledger, in input order."""
    scores = folder / "narrow" if asked.heads else None
    tasks = ledger_parts.tasks_of(folder / "ledger", decided.files, parts, layout, narrowed, scores)
    arguments = {
        "layout": layout,
        "spec": asked.spec,
        "reasons": decided.reasons,
        "is_held_out_again": asked.held_out is not None,
    }
    worker = WorkerSpec("curate.decide.ledger_parts:worker", arguments)
    values(engine.map(worker, tasks), "writing the ledger")
    return [task.path for task in tasks]


def _portable(spec: AnnotationSpec) -> AnnotationSpec:
    """The same, with nothing that was made for this process and cannot be sent to another one."""
    listed = spec.prefilter.caption.blocklist
    caption = replace(
        spec.prefilter.caption, blocklist=blocklist.read(listed) if listed is not None else None
    )
    return replace(spec, prefilter=replace(spec.prefilter, caption=caption))


def _with_blocklist(filters: FiltersConfig) -> FiltersConfig:
    """The same, with the words of a blocklist that is a file: all tasks judge by what it held at one time."""
    listed = filters.caption.blocklist
    if listed is None:
        return filters
    return replace(filters, caption=replace(filters.caption, blocklist=blocklist.read(listed)))


def _narrow(
    asked: _Asked, parts: Sequence[Path], layout: Layout, engine: Engine, folder: Path
) -> tuple[list[NarrowTask], Seen]:
    """Make the narrow tables; the tasks that made them, and what the rows of all look like."""
    tasks = narrow.tasks_of(parts, layout)
    inexact: frozenset[Bound] = frozenset()
    while True:
        arguments = {
            "folder": folder,
            "layout": layout,
            "spec": asked.spec,
            "heads": dict(asked.heads),
            "filters": asked.filters,
            "removals": asked.removals,
            "inexact": inexact,
        }
        worker = WorkerSpec("curate.decide.narrow:worker", arguments)
        found: list[Seen] = values(engine.map(worker, tasks), "judging rows")
        wholes = [seen.whole for seen in found]
        several = frozenset(bound for bound in Exactness.agreed(wholes) if _differ(bound, wholes))
        if several <= inexact:
            break
        inexact |= several  # a part compared whole numbers, and another one could not
    companions: Counter[str] = Counter()
    for seen in found:
        companions.update(seen.companions)
    return tasks, Seen(companions)


def _differ(bound: Bound, wholes: Sequence[Mapping[Bound, bool]]) -> bool:
    return len({whole[bound] for whole in wholes if bound in whole}) > 1


def _decide(
    connection: duckdb.DuckDBPyConnection,
    asked: _Asked,
    embedded: Embeddings,
    parts: Sequence[Path],
    seen: Seen,
    engine: Engine,
    folder: Path,
) -> _Decided:
    """Apply the rules in order; the first one that drops a pair is its reason. Then split what is kept."""
    filters, sides = asked.filters, asked.sides
    crowds = duplicates.copy_groups(connection, sides, filters.duplicates, embedded, folder, engine)
    found = siblings.find(connection, embedded, folder, sides.siblings)
    connection.sql("CREATE VIEW groups AS SELECT image, name FROM sibling_groups")
    again = None if asked.held_out is None else Frozen(connection, asked.held_out)
    null = shuffled(connection, embedded)
    own = Similarities.asked(connection, "SELECT similarity FROM pairs")
    threshold = threshold_of(filters.clip_similarity, null, own.values, own.times)
    rules = narrow.rules_in_order(filters, asked.removals)
    judgement = Judgement(connection, rules)
    judgement.judge(filters, threshold.value)
    _create_left_images(connection)
    crowds += duplicates.keepers(connection, filters.duplicates, embedded, folder, engine)
    judgement.drop_copies()
    _split(connection, sides, again is not None)
    outcome = None
    if again is not None:
        _create_fates(connection, judgement.reasons)
        outcome = again.outcome()
    ((pairs,),) = connection.sql("SELECT count(*) FROM judged").fetchall()
    files = ledger_parts.write_verdicts(
        connection,
        _rows(again is not None, len(judgement.reasons) - 1),
        pairs,
        folder / "verdicts",
    )
    verdicts = partial(
        Verdicts,
        steps=judgement.steps(seen.companions),
        cut=judgement.cuts.get(SIMILARITY),
        cut_by=threshold.provenance,
        null=null,
        leaks=leaks.measure(connection, embedded, parts, found.level, folder),
        loosened=found.loosened,
        held_out_again=outcome,
        crowds=crowds,
    )
    return _Decided(files, judgement.reasons, verdicts)


def _create_left_images(connection: duckdb.DuckDBPyConnection) -> None:
    """The images of the pairs that are left, of which copies are dropped."""
    connection.sql(
        "CREATE TABLE left_images AS SELECT image, similarity, area, key FROM ("
        "SELECT image, max(similarity) AS similarity FROM judged WHERE code = 0 GROUP BY image) "
        "JOIN images USING (image)"
    )


def _split(
    connection: duckdb.DuckDBPyConnection, sides: SplitConfig, is_held_out_again: bool
) -> None:
    """Create ``kept_rows`` and ``kept_images``, each with its side; shares are counted in images."""
    connection.sql("CREATE VIEW kept_rows AS SELECT row, image FROM judged WHERE code = 0")
    stays = (
        "SELECT *, '' AS stays FROM counted"
        if not is_held_out_again
        else "SELECT counted.*, coalesce(side, '') AS stays FROM counted LEFT JOIN frozen_groups USING (name)"
    )
    connection.sql(
        "CREATE TABLE kept_groups AS WITH counted AS (SELECT name, count(*) AS images FROM "
        f"(SELECT DISTINCT image FROM kept_rows) JOIN groups USING (image) GROUP BY name) {stays}"
    )
    split.assign(connection, sides)
    connection.sql(
        "CREATE TABLE kept_images AS SELECT image, side AS split, name FROM "
        "(SELECT DISTINCT image FROM kept_rows) JOIN groups USING (image) JOIN group_sides USING (name)"
    )
    # Two queries, one after the other: together they held twice as much in memory.
    different = "SELECT count(*) FROM (SELECT DISTINCT image FROM kept_rows)"
    ((kept,),) = connection.sql(different).fetchall()
    ((placed,),) = connection.sql("SELECT count(*) FROM kept_images").fetchall()
    if kept != placed:
        raise RuntimeError(f"{kept} images are kept, and {placed} have a group")


def _create_fates(connection: duckdb.DuckDBPyConnection, reasons: Sequence[Reason]) -> None:
    """What became of each image: its side, or the rule that drops it, of several captions the first."""
    names = ", ".join(f"({code}, ?)" for code in range(len(reasons)))
    connection.sql(
        f"CREATE TABLE rule_names AS SELECT * FROM (VALUES (-1, ?), {names}) AS rules(code, name)",
        params=[ledger.UNREADABLE, *(reason.name for reason in reasons)],
    )
    connection.sql(
        "CREATE TABLE image_fates AS SELECT image, coalesce(split, rule_names.name) AS fate FROM judged "
        "JOIN rule_names USING (code) LEFT JOIN kept_images USING (image) WHERE row = image"
    )


def _rows(is_held_out_again: bool, copied: int) -> str:
    """A query of ``ledger_parts.VERDICTS``, in the order of the input; ``copied`` is the code of dropped copies."""
    joined, by = (frozen.JOINED, frozen.BY) if is_held_out_again else ("", "''")
    return (
        "WITH fates AS (SELECT images.image, groups.name AS duplicate_group, copy_groups.name AS copy_group, "
        f"coalesce(better.key, '') AS duplicate_of, coalesce(split, '') AS split, {by} AS held_out_by "
        "FROM images LEFT JOIN groups USING (image) LEFT JOIN copy_groups USING (image) "
        "LEFT JOIN keepers USING (image) LEFT JOIN images AS better ON better.image = keepers.keeper "
        f"LEFT JOIN kept_images USING (image) {joined}) "
        f"SELECT code, duplicate_group, copy_group, CASE WHEN code = {copied} THEN duplicate_of ELSE '' END "
        "AS duplicate_of, CASE WHEN code = 0 THEN split ELSE '' END AS split, held_out_by "
        "FROM judged JOIN fates USING (image) ORDER BY row"
    )
