"""The plan of ``python -m curate``: annotate, decide, shard, report; the same command resumes it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from curate.annotate import stage as annotate
from curate.annotate.columns import unheard_of
from curate.annotate.spec import AnnotationSpec
from curate.clip.load import load_clip
from curate.clip.models import fingerprint
from curate.decide.stage import Verdicts, judge
from curate.filters import blocklist
from curate.filters.config import FiltersConfig
from curate.filters.similarity import NAME as SIMILARITY
from curate.pack.writer import write_shards
from curate.pipeline import notes, previous_run
from curate.pipeline.config import CurateConfig
from curate.readers.sample import Candidate
from curate.readers.source import Source
from curate.report import curation as report
from curate.report import figures as funnel
from curate.run import ledger, memory, provenance
from curate.run.cli import UserError
from curate.run.files import locked, remove_parts, sha256_of, write_json
from curate.run.manifest import Manifest, ShardInfo, old_manifest, write_manifest
from curate.run.removals import read_removals, write_removals

_FIRST = 1000  # images whose columns are looked at before anything is scored


def run(config: CurateConfig, source: Source) -> None:
    """Curate ``source`` into ``<run.root>/<run.name>/curate`` and print the funnel.

    Under a launcher of several processes the first does the work and the others return.

    Raises:
        UserError: nothing is kept, or too much is unreadable.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return
    curate_dir = config.run.folder / "curate"
    with locked(curate_dir):
        _run(config, source, curate_dir)


def _run(config: CurateConfig, source: Source, curate_dir: Path) -> None:
    _say(previous_run.other_data(curate_dir, config))
    remove_parts(curate_dir)
    if old_manifest(curate_dir) is None:  # else it describes what is there until that is replaced
        provenance.write_config(curate_dir / "config.yaml", config)
    listed = read_removals(curate_dir)
    scorer = cache(lambda: load_clip(config.clip))
    spec = AnnotationSpec.of(config.clip, config.filters, config.annotate)
    measured = annotate.annotate(
        _watched(source, config),
        curate_dir / "annotations",
        config.annotate,
        spec,
        scorer,
    )
    if scorer.cache_info().currsize:
        if scorer().images.items:
            _say(f"clip: {scorer().speed()}")
        scorer.cache_clear()
        memory.give_back()  # what follows needs it, not the model
    verdicts = judge(measured.parts, spec, config.heads, config.filters, config.split, listed)
    ledger.check_complete(verdicts.ledger, measured.pairs)
    figures = funnel.summarise(verdicts, [*source.notes, *notes.of(config, verdicts)])
    _say("\n".join(funnel.lines(figures)))
    if not figures["kept"]:
        raise UserError(_nothing_kept(figures))
    _write_results(curate_dir, config, source, verdicts, figures)
    if listed.pending:  # this curation has left out what a removal was interrupted in
        write_removals(curate_dir, replace(listed, pending=False))
    _say(f"report: {curate_dir / 'report.html'}\nshards: {curate_dir / 'shards'}")


def _watched(source: Source, config: CurateConfig) -> Source:
    """The same, with a warning once its first images show that a rule looks at what is not there.

    Later ones may have it, so that it is no error yet; but hours of scoring lie before that.
    """

    def candidates() -> Iterator[Candidate]:
        stream = source.candidates()
        first = list(islice(stream, _FIRST))
        offered = {name for candidate in first for name in candidate.columns}
        missing = unheard_of(config.filters.columns, offered, config.heads) if first else []
        for name in missing:
            _say(
                f"warning: filters.columns.{name}: none of the first {len(first)} images has a "
                f"column {name!r}; of their own they have: {', '.join(sorted(offered)) or 'none'}"
            )
        yield from first
        yield from stream

    return replace(source, candidates=candidates)


def _write_results(
    curate_dir: Path,
    config: CurateConfig,
    source: Source,
    verdicts: Verdicts,
    figures: dict[str, Any],
) -> None:
    """What was asked for, shards, ledger, funnel, report and, last, the manifest."""
    provenance.write_config(curate_dir / "config.yaml", config)
    before = old_manifest(curate_dir)
    plans, manifest = write_shards(
        curate_dir,
        verdicts.ledger,
        source.load,
        config.shards,
        config.annotate.workers,
        lambda found, extension: _manifest(config, figures, found, extension),
    )
    shard_of = {key: planned.path for planned in plans for key in planned.keys}
    table = verdicts.ledger
    table["shard"] = table["key"].where(table["kept"]).map(shard_of).fillna("")
    ledger.write(curate_dir / "ledger", table)
    write_json(curate_dir / "funnel.json", figures)
    report.write(curate_dir, asdict(config), verdicts, figures, source.load)
    write_manifest(curate_dir, manifest)
    _say(previous_run.training(curate_dir, before, manifest))


def _manifest(
    config: CurateConfig, figures: dict[str, Any], found: list[ShardInfo], extension: str
) -> Manifest:
    """What the finished set holds, and fingerprints of all that decided it."""
    counts = ("pairs_in", ledger.KEPT, ledger.DROPPED, ledger.UNREADABLE, "samples")
    heads = {name: sha256_of(Path(head.path)) for name, head in config.heads.items()}
    return Manifest(
        shards=tuple(found),
        totals={name: figures[name] for name in counts},
        fingerprint={
            "scorer": fingerprint(config.clip, config.annotate.draft),
            "filters": _digest([asdict(config.filters), _blocked(config.filters)]),
            "split": _digest(asdict(config.split)),
            "heads": _digest(heads),
        },
        image_format=extension,
    )


def _blocked(filters: FiltersConfig) -> list[str]:
    """The words of a blocklist, whose file may change under its name."""
    listed = filters.caption.blocklist
    return blocklist.read(listed) if listed else []


def _digest(value: Any) -> str:
    known = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(known, digest_size=8).hexdigest()


def _nothing_kept(figures: dict[str, Any]) -> str:
    took = {rule["rule"]: rule["dropped"] for rule in figures["rules"] if rule["dropped"]}
    reasons = ", ".join(f"{why} ({count})" for why, count in [*figures["reasons"].items()][:3])
    said = f"no pair of {figures['pairs_in']} is kept: {reasons}"
    if ledger.UNREADABLE in took and len(took) == 1:
        keys = "such as dataset.image_column=NAME for a table"
        return f"{said}; type the keys of dataset= that lead to the images, {keys}"
    if SIMILARITY in took:
        cut = funnel.describe_cut(figures["cut"])
        said += f" (cut: {cut}; filters.clip_similarity.fraction=0.5 keeps the better half)"
    return f"{said}; loosen the rule, or type filters=everything to see the scores"


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
