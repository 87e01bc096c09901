"""The trial ``dry_run=N``: curate N images without writing shards, and print a forecast for all."""

from __future__ import annotations

import hashlib
import heapq
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from curate.annotate.embeddings import Embeddings
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stage import TASKS, Annotations, Measure, annotate
from curate.clip.load import load_clip
from curate.decide import held_out
from curate.decide.stage import judge
from curate.measures.decode import UnreadableImage
from curate.pack.sample import Sample, encode_sample
from curate.pack.samples import Samples
from curate.pack.sorting import kept_rows
from curate.pipeline import notes, own_part
from curate.pipeline.config import CurateConfig
from curate.pipeline.forecast import Count, Trial, lines
from curate.readers.candidate import Candidate
from curate.readers.source import Source
from curate.run import ledger
from curate.run.config import DRY_RUN
from curate.run.engine.config import EngineConfig
from curate.run.engine.inprocess import InProcess
from curate.run.files import remove_parts, replace_folder
from curate.run.ledger_table import check_complete
from curate.run.locks import locked
from curate.run.overrides import key_of, typed
from curate.run.progress import Bar
from curate.run.removals import read_removals

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; see getrusage(2) of either
WARM_UP = 64  # at most as many images are scored before the speed is measured

_Result = TypeVar("_Result")


def run(config: CurateConfig, source: Source) -> None:
    """Measure and judge ``config.dry_run`` images, and print a forecast for the whole data set.

    The run itself is not changed; the previous trial is replaced.

    Raises:
        UserError: too much is unreadable.
    """
    folder = config.run.folder / DRY_RUN / "curate"
    chosen, whole = choose(source, config.dry_run or 1)
    with locked(folder.parent):
        remove_parts(folder.parent)
        part = folder.with_name(f".{folder.name}.part")
        trial = _try(config, chosen, part)
        shutil.rmtree(part / TASKS)
        replace_folder(part, folder)
    print("\n".join(lines(trial, whole, folder)))
    config_notes = [
        *own_part.note(config.dataset),
        *notes.unsafe(config),
        *_alone(config.engine),
    ]
    for note in [*chosen.notes, *config_notes, *trial.notes]:
        print(f"note: {note}")
    print(f"next, type: {next_command(typed() or [])}")


def _alone(engine: EngineConfig) -> Iterator[str]:
    """A note where the whole data set is measured by several workers, and the trial by none of them."""
    if engine.name != "inprocess" and engine.workers != 1:
        several = "several workers" if engine.workers is None else f"{engine.workers} workers"
        yield (
            f"the trial measured and packed in this process alone, and the time above is that of one; engine={engine.name} "
            f"does it with {several} at once, each of which takes about this process's memory as well"
        )


def choose(source: Source, count: int) -> tuple[Source, Count]:
    """The ``count`` images with the lowest hashes, in input order, and the size of the whole; one pass.

    Hashes sample the whole evenly and choose the same images each time. Only these are in memory.
    """
    images = pairs = 0

    def ranked() -> Iterator[tuple[bytes, int, Candidate]]:
        nonlocal images, pairs
        for candidate in Bar(source.candidates(), total=source.total, desc="count", unit="img"):
            yield _rank(candidate.key), images, candidate
            images += 1
            pairs += max(1, len(candidate.captions))

    least = heapq.nsmallest(count, ranked(), key=lambda entry: entry[:2])
    chosen = [candidate for _, _, candidate in sorted(least, key=lambda entry: entry[1])]
    return replace(source, candidates=lambda: iter(chosen), total=len(chosen)), Count(images, pairs)


def _rank(key: str) -> bytes:
    """A hash independent of those that ``dataset.sample`` and ``part`` choose by."""
    return hashlib.blake2b(key.encode(), digest_size=8, salt=b"dry_run").digest()


def _try(config: CurateConfig, chosen: Source, folder: Path) -> Trial:
    """Annotate, decide, and encode the samples without writing them."""
    spec = AnnotationSpec.of(config.clip, config.filters, config.annotate)
    measured, start_s, image_s = _measure(config, spec, chosen, folder / "annotations")
    tasks = folder / TASKS
    with judge(
        measured.parts,
        measured.spec,
        config.heads,
        config.filters,
        config.split,
        read_removals(config.run.folder / "curate"),
        held_out.named_in(config.split),
        engine=InProcess(),
        folder=tasks,
        limits=config.engine.limits(tasks),
    ) as verdicts:
        table = verdicts.ledger
        check_complete(table, measured.pairs)
        ledger.copy(table.parts, folder / "ledger")
        kept = Samples(kept_rows(table, ledger.schema(table.parts[0])))
        kept_pairs = table.count("kept")
        work_bytes = _size(tasks)
        source_bytes = int(table.value('SELECT sum("bytes") FROM ledger WHERE row = image') or 0)
        seen = [
            *notes.unread_heic(verdicts),
            *notes.unread_credentials(config, verdicts),
            *notes.blind_clip(verdicts, config.clip),
        ]
    shard_bytes, kept_s = _timed(lambda: _packed_bytes(chosen, kept))
    return Trial(
        count=Count(chosen.total or 0, measured.pairs),
        steps=verdicts.steps,
        cut=verdicts.cut,
        cut_by=verdicts.cut_by,
        kept_pairs=kept_pairs,
        kept_images=len(kept),
        notes=seen,
        start_s=start_s,
        image_s=image_s,
        kept_s=kept_s / max(1, len(kept)),
        source_bytes=source_bytes,
        annotation_bytes=sum(path.stat().st_size for path in measured.parts),
        ledger_bytes=_size(folder / "ledger"),
        work_bytes=work_bytes,
        joins_siblings=config.split.siblings,
        shard_bytes=shard_bytes,
        table_bytes=config.engine.memory_bytes,
        embedding_bytes=next(
            (v[0].nbytes for _, v in Embeddings(measured.parts).image_blocks()), 0
        ),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT,
    )


def _measure(
    config: CurateConfig, spec: AnnotationSpec, chosen: Source, folder: Path
) -> tuple[Annotations, float, float]:
    """Annotate in two steps; return the seconds of the warm-up and, after it, the seconds per image.

    Nothing is taken from the cache that runs share: what was measured before would take no time.
    """
    scorer = cache(lambda: load_clip(config.clip))
    images = list(chosen.candidates())
    first = images[: min(WARM_UP, -(-len(images) // 10))]

    def measure(part: list[Candidate], max_reject_rate: float) -> Annotations:
        source = replace(chosen, candidates=lambda: iter(part), total=len(part))
        limits = replace(config.annotate, max_reject_rate=max_reject_rate)
        tables = config.engine.limits(folder.with_name(TASKS))
        return annotate(source, Measure(folder, limits, spec, scorer, limits=tables))

    def warm_up() -> None:
        scorer()
        measure(first, 1.0)

    _, start_s = _timed(warm_up)
    measured, rest_s = _timed(lambda: measure(images, config.annotate.max_reject_rate))
    rest = len(images) - len(first)
    return measured, start_s, rest_s / rest if rest else start_s


def _size(folder: Path) -> int:
    """Bytes of the files in ``folder`` and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _timed(function: Callable[[], _Result]) -> tuple[_Result, float]:
    """The result of ``function`` and the seconds it took."""
    start = time.monotonic()
    result = function()
    return result, time.monotonic() - start


def _packed_bytes(source: Source, kept: Samples) -> int:
    """The size of the kept samples in tars, if no image has to be encoded again."""
    location_of = kept.locations()
    total = 0
    for row in kept.rows():
        try:
            image = source.load(location_of[row["key"]])
        except UnreadableImage:
            continue  # it has changed since it was measured; the run itself reports that
        sample = Sample(row["key"], image, tuple(row["captions"]), row)
        total += sum(map(len, encode_sample(sample, "jpg")))
    return total


def next_command(arguments: list[str]) -> str:
    """The command for the whole data set: the trial's without ``dry_run``.

    >>> next_command(["dataset=coco", "dry_run=500", "run.name=my run"])
    "python -m curate dataset=coco 'run.name=my run'"
    """
    kept = [text for text in arguments if key_of(text) != "dry_run"]
    return shlex.join(["python", "-m", "curate", *kept])
