"""The plan of ``python -m curate``: annotate, decide, shard, report; the same command resumes it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from curate import readers
from curate.annotate.columns import unknown_columns
from curate.annotate.reread import read_again
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stage import Annotations, annotate
from curate.annotate.store import SharedStore, folder_of, shared_store
from curate.clip.load import load_clip
from curate.clip.models import arithmetic, fingerprint
from curate.decide import held_out
from curate.decide.config import SplitConfig
from curate.decide.frozen import HeldOutAgain
from curate.decide.stage import Verdicts, judge
from curate.filters import blocklist
from curate.filters.config import FiltersConfig
from curate.pack.images import ImageChanged
from curate.pack.plan import Plan, is_outdated, remove_stale
from curate.pack.stage import Packed, write_shards
from curate.pipeline import notes, nothing_kept, own_part, previous_run
from curate.pipeline.config import CurateConfig
from curate.readers.candidate import Candidate
from curate.readers.source import Source
from curate.report import curation, figures
from curate.run import checksums, ledger, memory, provenance, shared_cache, tracking
from curate.run.files import remove_parts, sha256_of
from curate.run.locks import locked
from curate.run.manifest import Manifest, old_manifest, retire, write_funnel, write_manifest
from curate.run.removals import Removals, read_removals, write_removals
from curate.run.schema import UserError

_FIRST = 1000  # images whose columns are looked at before anything is scored


def run(config: CurateConfig, source: Source) -> None:
    """Curate ``source`` into ``<run.root>/<run.name>/curate`` and print the funnel.

    Raises:
        UserError: nothing is kept, or too much is unreadable.
    """
    curate_dir = config.run.folder / "curate"
    with locked(curate_dir):
        _run(config, source, curate_dir)


def _run(config: CurateConfig, source: Source, curate_dir: Path) -> None:
    own_part.check(config)
    _say("\n".join(f"note: {text}" for text in own_part.note(config.dataset)))
    _say(previous_run.other_data(curate_dir, config))
    question = previous_run.Question(curate_dir, config)
    _say(question.note())
    remove_parts(curate_dir)
    # A finished curation's config.yaml describes its shards until they are replaced.
    if old_manifest(curate_dir) is None and not question.stands:
        provenance.write_config(curate_dir / "config.yaml", config)
    removals, once_held_out = read_removals(curate_dir), held_out.named_in(config.split)
    listed = checksums.withdraw(curate_dir)
    spec = AnnotationSpec.of(config.clip, config.filters, config.annotate)
    annotations = _annotate(config, spec, source, curate_dir, removals)
    verdicts = judge(
        annotations.parts,
        spec,
        config.heads,
        config.filters,
        config.split,
        removals,
        once_held_out,
    )
    ledger.check_complete(verdicts.ledger, annotations.pairs)
    funnel = figures.summarise(verdicts, [*source.notes, *notes.of(config, verdicts)])
    _say("\n".join(figures.lines(funnel)))
    if not funnel["kept"]:
        written = nothing_kept.write(config, source, verdicts, funnel)
        if old_manifest(curate_dir) is not None and listed.files:  # the shards are as they were
            checksums.write(curate_dir, listed, ("annotations/",))
        raise UserError(nothing_kept.message(config, verdicts.ledger, funnel, written))
    try:
        question.ask_if_rows_changed(verdicts.ledger)
        manifest = _write_results(curate_dir, config, source, verdicts, funnel, question)
    except previous_run.NotReplaced:
        if listed.files:  # as above
            checksums.write(curate_dir, listed, ("annotations/",))
        raise
    nothing_kept.remove(config)
    if removals.pending:  # an interrupted removal is complete: these shards are without its images
        write_removals(curate_dir, replace(removals, pending=False))
    checksums.write(curate_dir, known=manifest.sha256_of_shards())
    tracking.write(config.tracker, curate_dir, [(0, figures.numbers(funnel))])
    _say(shared_cache.note(_cache_dir(config), config.run.cache_gb))
    _say(f"report: {curate_dir / 'report.html'}\nshards: {curate_dir / 'shards'}")


def _annotate(
    config: CurateConfig,
    spec: AnnotationSpec,
    source: Source,
    curate_dir: Path,
    removals: Removals,
) -> Annotations:
    """Measure what no run has measured; the model is loaded when needed, and let go afterwards."""
    scorer = cache(lambda: load_clip(config.clip))

    def shared() -> AbstractContextManager[SharedStore]:
        folder = folder_of(_cache_dir(config), spec, arithmetic(config.clip))
        return shared_store(folder, spec, removals)

    annotations = annotate(
        _watched(source, config), curate_dir / "annotations", config.annotate, spec, scorer, shared
    )
    if scorer.cache_info().currsize:
        if scorer().images.items:
            _say(f"clip: {scorer().speed()}")
        scorer.cache_clear()
        memory.give_back()  # deciding needs the memory, and not the model
    return annotations


def _cache_dir(config: CurateConfig) -> Path:
    return Path(config.run.root, shared_cache.CACHE)


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
) -> Manifest:
    """Write configuration, shards, ledger, funnel, report and, last, the manifest, which is returned."""

    @cache
    def begin() -> None:
        provenance.write_config(curate_dir / "config.yaml", config)
        retire(curate_dir)

    def before_change(planned: Plan, wanted: str) -> None:
        if is_outdated(curate_dir, planned, wanted):
            question.ask(verdicts.ledger)
        begin()

    before = old_manifest(curate_dir)
    packed = _pack(curate_dir, config, source, verdicts, before_change)
    provenance.write_config(curate_dir / "config.yaml", config)
    manifest = _manifest(config, funnel, packed, verdicts.held_out_again)
    retire(curate_dir, unless=manifest)
    remove_stale(curate_dir, packed.plans)
    shard_of = {key: planned.path for planned in packed.plans for key in planned.keys}
    table = verdicts.ledger
    table["shard"] = table["key"].where(table["kept"]).map(shard_of).fillna("")
    ledger.write(curate_dir / "ledger", table)
    write_funnel(curate_dir, funnel)
    curation.write(curate_dir, asdict(config), verdicts, funnel, source.load)
    write_manifest(curate_dir, manifest)
    if before is not None:
        _say(question.outcome(before, manifest))
    return manifest


def _pack(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    verdicts: Verdicts,
    before_change: Callable[[Plan, str], None],
) -> Packed:
    """Write the shards; what has changed meanwhile is measured by the next run, which it says."""
    try:
        return write_shards(
            curate_dir,
            verdicts.ledger,
            source.load,
            config.shards,
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


def _manifest(
    config: CurateConfig, funnel: dict[str, Any], packed: Packed, again: HeldOutAgain | None
) -> Manifest:
    """What the finished set holds, with fingerprints of scorer, filters, split and heads."""
    counts = ("pairs_in", ledger.KEPT, ledger.DROPPED, ledger.UNREADABLE, "samples")
    heads = {name: sha256_of(Path(head.path)) for name, head in config.heads.items()}
    return Manifest(
        shards=tuple(packed.shards),
        totals={name: funnel[name] for name in counts},
        fingerprint={
            "scorer": fingerprint(config.clip, config.annotate.draft),
            "filters": _digest([_rules(config.filters), _blocked(config.filters)]),
            "split": _digest_of_split(config.split, again),
            "heads": _digest(heads),
        },
        image_format=packed.extension,
        part=config.dataset.shard,
    )


def _digest_of_split(sides: SplitConfig, again: HeldOutAgain | None) -> str:
    """Of the settings, and of the rows of ``split.held_out``, whose file may change under its name or move."""
    settings = asdict(sides)
    del settings["held_out"]
    return _digest(settings if again is None else [settings, again.digest])


def _rules(filters: FiltersConfig) -> dict[str, Any]:
    """The settings; those on consent only where they ask for anything, as earlier releases had none."""
    settings = asdict(filters)
    if not filters.consent.columns:
        del settings["consent"]
    return settings


def _blocked(filters: FiltersConfig) -> list[str]:
    """The words of a blocklist, whose file may change under its name."""
    listed = filters.caption.blocklist
    return blocklist.read(listed) if listed else []


def _digest(value: Any) -> str:
    known = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(known, digest_size=8).hexdigest()


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
