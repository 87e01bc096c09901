"""The plan of ``python -m curate``: annotate, decide, shard, report; the same command resumes it."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import readers
from curate.annotate.columns import unknown_columns
from curate.annotate.reread import read_again
from curate.annotate.stage import TASKS, Annotations, Measure, annotate
from curate.clip.load import LazyClip
from curate.decide import held_out
from curate.decide.stage import Verdicts, judge
from curate.pack.final_ledger import write_ledger
from curate.pack.images import ImageChanged
from curate.pack.plan import remove_stale
from curate.pack.stage import Packed, write_shards
from curate.pipeline import copying, notes, nothing_kept, own_part, previous_run, stages
from curate.pipeline.config import ANNOTATE, FINISH, CurateConfig
from curate.pipeline.fingerprints import manifest_of
from curate.readers.candidate import Candidate
from curate.readers.source import Source
from curate.report import curation, figures
from curate.run import checksums, memory, provenance, shared_cache, tracking
from curate.run.engine.opened import open_engine
from curate.run.engine.tasks import Engine, TasksFailed
from curate.run.files import remove_parts
from curate.run.ledger_table import LedgerTable, check_complete
from curate.run.locks import locked
from curate.run.manifest import Manifest, old_manifest, retire, write_funnel, write_manifest
from curate.run.removals import Removals, read_removals, write_removals
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

_FIRST = 1000  # images whose columns are looked at before anything is scored


def run(config: CurateConfig, source: Source) -> None:
    """Curate ``source`` into ``<run.root>/<run.name>/curate`` and print the funnel.

    Raises:
        UserError: nothing is kept, or too much is unreadable.
    """
    curate_dir = config.run.folder / "curate"
    if config.stage == ANNOTATE:
        stages.annotate_share(config, _watched(source, config), curate_dir)
        return
    # Under another name nothing is measured that could be finished.
    with locked(curate_dir, "" if config.stage == FINISH else "run.name"):
        _run(config, source, curate_dir)


def _run(config: CurateConfig, source: Source, curate_dir: Path) -> None:
    own_part.check(config)
    stages.clear(curate_dir / TASKS)
    begun = _begin(config, curate_dir)
    try:
        with open_engine(config.engine, curate_dir / TASKS) as engine:
            manifest, funnel = _curate(config, source, curate_dir, engine, begun)
    except (nothing_kept.NothingKept, previous_run.NotReplaced):
        shutil.rmtree(curate_dir / TASKS)
        _list_as_before(curate_dir, begun)
        raise
    _finish(config, curate_dir, begun.removals, manifest, funnel)


def _list_as_before(curate_dir: Path, begun: _Begun) -> None:
    """Give a finished curation its checksums back, of whose files nothing but annotations has changed."""
    if old_manifest(curate_dir) is not None and begun.listed.files:
        checksums.write(curate_dir, begun.listed, ("annotations/",))


@dataclass(frozen=True, slots=True)
class _Begun:
    """What is known of the run's folder before anything is measured.

    Attributes:
        question: about a training that stands on the shards.
        removals: what was removed from the run for good.
        once_held_out: the table that ``split.held_out`` names.
        listed: the checksums, which were taken away.
    """

    question: previous_run.Question
    removals: Removals
    once_held_out: pd.DataFrame | None
    listed: checksums.Listed


def _begin(config: CurateConfig, curate_dir: Path) -> _Begun:
    _say("\n".join(f"note: {text}" for text in own_part.note(config.dataset)))
    _say(previous_run.other_data(curate_dir, config))
    question = previous_run.Question(curate_dir, config)
    _say(question.note())
    remove_parts(curate_dir)
    # A finished curation's config.yaml describes its shards until they are replaced.
    if old_manifest(curate_dir) is None and not question.stands:
        _write_config(curate_dir, config)
    removals, once_held_out = read_removals(curate_dir), held_out.named_in(config.split)
    return _Begun(question, removals, once_held_out, checksums.withdraw(curate_dir))


def _curate(
    config: CurateConfig, source: Source, curate_dir: Path, engine: Engine, begun: _Begun
) -> tuple[Manifest, dict[str, Any]]:
    """Measure, decide and write the results; their manifest and funnel."""
    measure = stages.measure_of(config, curate_dir, begun.removals, engine)
    try:
        annotations = _annotate(config, source, measure)
    except (UserError, TasksFailed):
        _list_as_before(curate_dir, begun)
        raise
    with judge(
        annotations.parts,
        annotations.spec,
        config.heads,
        config.filters,
        config.split,
        begun.removals,
        begun.once_held_out,
        engine=engine,
        # Workers of a driver that was killed may write on for seconds: not over what this one believes.
        folder=curate_dir / TASKS / f"deciding-{secrets.token_hex(4)}",
        limits=measure.tables,
    ) as verdicts:
        check_complete(verdicts.ledger, annotations.pairs)
        funnel = figures.summarise(verdicts, [*source.notes, *notes.of(config, verdicts)])
        _say("\n".join(figures.lines(funnel)))
        if not funnel["kept"]:
            nothing_kept.report(config, source, verdicts, funnel)
        begun.question.ask_if_rows_changed(verdicts.ledger)
        manifest = _write_results(
            curate_dir, config, source, verdicts, funnel, begun.question, engine
        )
    return manifest, funnel


def _finish(
    config: CurateConfig,
    curate_dir: Path,
    removals: Removals,
    manifest: Manifest,
    funnel: dict[str, Any],
) -> None:
    """Delete what the curation needed, and write what tells of it: checksums, figures, a copy elsewhere."""
    nothing_kept.remove(config)
    shutil.rmtree(curate_dir / TASKS)
    if removals.pending:  # an interrupted removal is complete: these shards are without its images
        write_removals(curate_dir, replace(removals, pending=False))
    checksums.write(curate_dir, known=manifest.sha256_of_shards())
    tracking.write(config.tracker, curate_dir, [(0, figures.numbers(funnel))])
    _say(shared_cache.note(stages.cache_dir(config), config.run.cache_gb))
    _say(copying.copy(config, curate_dir))
    _say(f"report: {curate_dir / 'report.html'}\nshards: {curate_dir / 'shards'}")


def _annotate(config: CurateConfig, source: Source, measure: Measure) -> Annotations:
    """Measure what no run has measured; the model is loaded when needed, and let go afterwards."""
    watched, settings = _watched(source, config), stages.settings_of(config, measure.spec)
    if config.stage == FINISH:
        annotations = stages.check_done(watched, measure, settings)
    else:
        annotations = annotate(watched, measure, settings)
    assert isinstance(measure.load_scorer, LazyClip)
    if scorer := measure.load_scorer.loaded:
        if scorer.images.items:
            _say(f"clip: {scorer.speed()}")
        measure.load_scorer.loaded = scorer = None
        memory.give_back()  # deciding needs the memory, and not the model
    return annotations


def _write_config(curate_dir: Path, config: CurateConfig) -> None:
    provenance.write_config(curate_dir / "config.yaml", _whole(config))


def _whole(config: CurateConfig) -> CurateConfig:
    """The settings of a finished curation: in how many stages it was made has no part in it."""
    return replace(config, stage=None, shard=None)


def _watched(source: Source, config: CurateConfig) -> Source:
    """The same source, with a warning if its first images lack a column that a rule looks at.

    Later images may have it, so it is no error yet; but hours of scoring would pass before that shows.
    """

    def candidates() -> Iterator[Candidate]:
        stream = source.candidates()
        first = list(islice(stream, _FIRST))
        offered = {name for candidate in first for name in candidate.columns}
        missing = unknown_columns(config.filters.columns, offered, config.heads) if first else []
        for name in missing:
            _say(
                f"warning: filters.columns.{name}: none of the first {len(first)} images has a "
                f"column {name!r}; the source's own columns: {', '.join(sorted(offered)) or 'none'}"
            )
        yield from first
        yield from stream

    return replace(source, candidates=candidates)


def _write_results(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    verdicts: Verdicts,
    funnel: dict[str, Any],
    question: previous_run.Question,
    engine: Engine,
) -> Manifest:
    """Write configuration, shards, ledger, funnel, report and, last, the manifest, which is returned."""

    def before_change(outdated: bool) -> None:
        if outdated:
            question.ask(verdicts.ledger)
        _write_config(curate_dir, config)
        retire(curate_dir)

    before = old_manifest(curate_dir)
    packed = _pack(curate_dir, config, source, verdicts.ledger, engine, before_change)
    _write_config(curate_dir, config)
    manifest = manifest_of(config, funnel, packed, verdicts.held_out_again)
    retire(curate_dir, unless=manifest)
    remove_stale(curate_dir, packed.plans)
    write_ledger(
        curate_dir / "ledger", verdicts.ledger.parts, packed.planned, config.shards.order, engine
    )
    write_funnel(curate_dir, funnel)
    curation.write(curate_dir, asdict(_whole(config)), verdicts, funnel, source.load)
    write_manifest(curate_dir, manifest)
    if before is not None:
        _say(question.outcome(before, manifest))
    return manifest


def _pack(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    table: LedgerTable,
    engine: Engine,
    before_change: Callable[[bool], None],
) -> Packed:
    """Write the shards; what has changed meanwhile is measured by the next run, which it says."""
    try:
        return write_shards(
            curate_dir,
            table,
            table.parts,
            config.shards,
            engine,
            source.load,
            config.annotate.workers,
            before_change,
            own_part.prefix(config.dataset),
        )
    except ImageChanged as error:
        now = readers.read(config.dataset)  # as ``source`` may have been listed before the change
        changed = next((c for c in now.candidates() if c.key == error.key), None)
        if changed and read_again(curate_dir / "annotations", changed):
            raise UserError(
                f"{error}; its size and time do not show the change, so every image is read again"
            ) from error
        raise


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
