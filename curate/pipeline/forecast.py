"""Scale a trial to the whole data set: pairs kept, with an interval, and time, disk and memory."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.decide.shuffled_captions import MAX_PAIRS
from curate.run.intervals import wilson
from curate.run.units import duration, size

PAIR_BYTES = 1_700
"""Of deciding's tables, a pair, until they reach ``engine.memory``.

Measured by ``workflows.bench.deciding``, with 2 threads and 2 GB that were not reached: 240 MB more at the peak for 50,000
pairs, 487 MB for 200,000, so 1,650 bytes for each one more.
"""
# Arrays in memory, an image, whatever ``engine.memory`` is, by the docstrings of what holds them.
COPIES_BYTES = 27  # components 24, looks that go with others 2, copies that go 1
SIBLINGS_BYTES = (
    32  # those with near captions: rows, their order by part, rows in that order, places
)


@dataclass(frozen=True, slots=True)
class Count:
    """A number of images and of their pairs."""

    images: int
    pairs: int


@dataclass(frozen=True)
class Trial:
    """Measurements of a trial.

    Attributes:
        count: images and pairs of the trial.
        steps, cut, cut_by: see ``decide.stage.Verdicts``.
        kept_pairs: pairs that are kept.
        kept_images: images with a kept caption.
        notes: on what was seen.
        start_s: seconds to load the model and score the first images.
        image_s: seconds per image after that.
        kept_s: seconds to read again and pack one kept image.
        source_bytes: size of the image files.
        annotation_bytes: size of the annotations on disk.
        ledger_bytes: size of the ledger.
        work_bytes: size of the working files of deciding, which go at the end.
        joins_siblings: whether embeddings of pictures with near captions are written beside each other.
        shard_bytes: size of the kept samples in tars.
        table_bytes: of ``engine.memory``, which the tables of deciding may fill.
        embedding_bytes: size of the embedding of one image or caption.
        peak_bytes: peak memory of this process so far.
    """

    count: Count
    steps: Sequence[tuple[str, int]]
    cut: float | None
    cut_by: str
    kept_pairs: int
    kept_images: int
    notes: Sequence[str]
    start_s: float
    image_s: float
    kept_s: float
    source_bytes: int
    annotation_bytes: int
    ledger_bytes: int
    work_bytes: int
    joins_siblings: bool
    shard_bytes: int
    table_bytes: int
    embedding_bytes: int
    peak_bytes: int


def lines(trial: Trial, whole: Count, folder: Path) -> Iterator[str]:
    """The trial's figures, scaled to the whole data set, as lines for the terminal."""
    seen = trial.count
    yield (
        f"dry run: {seen.images:,} of {whole.images:,} images ({seen.pairs:,} of {whole.pairs:,} pairs), "
        "chosen by hash"
    )
    yield from _dropped(trial, whole)
    cut, cut_by = trial.cut, trial.cut_by
    yield f"cut: {cut_by}" if cut is None else f"cut: similarity >= {cut:.4f} ({cut_by})"
    yield _kept("pairs", trial.kept_pairs / seen.pairs, seen.images, whole.pairs)
    yield _kept("images", trial.kept_images / seen.images, seen.images, whole.images)
    yield "  95% Wilson intervals over images, without duplicates that only the whole data set would show"
    yield from _costs(trial, whole, folder)
    yield f"results: {folder.parent}; try python -m curate.calibrate {shlex.quote(str(folder.parent))}"


def _dropped(trial: Trial, whole: Count) -> Iterator[str]:
    yield f"{'rule':<24}{'dropped':>8}{'share':>9}{'of all pairs':>15}"
    for rule, dropped in trial.steps:
        share = dropped / trial.count.pairs
        yield f"{rule:<24}{dropped:>8,}{share:>9.1%}{round(share * whole.pairs):>15,}"


def _kept(what: str, share: float, trials: int, whole: int) -> str:
    low, high = wilson(share * trials, trials)
    return (
        f"kept {what}: {share:.1%} ({low:.1%} ... {high:.1%}), "
        f"{math.floor(low * whole):,} ... {math.ceil(high * whole):,} of {whole:,}"
    )


def _costs(trial: Trial, whole: Count, folder: Path) -> Iterator[str]:
    scale = whole.images / trial.count.images
    measuring = trial.image_s * whole.images
    packing = trial.kept_s * trial.kept_images * scale
    yield (
        f"time: {duration(trial.start_s)} until the first pairs are scored, then "
        f"{1 / trial.image_s:,.1f} images/s: {duration(measuring)}; packing {duration(packing)}; "
        f"total {duration(trial.start_s + measuring + packing)}"
    )
    stays = (trial.shard_bytes + trial.annotation_bytes + trial.ledger_bytes) * scale
    goes = working_bytes(trial, whole)
    written = stays + goes
    free = shutil.disk_usage(folder).free
    yield (
        f"disk: shards {size(trial.shard_bytes * scale)}, annotations "
        f"{size(trial.annotation_bytes * scale)}, ledger {size(trial.ledger_bytes * scale)}, and until it is finished "
        f"up to {size(goes)} of working files; {size(free)} free"
        f"{'' if written < free else ', NOT ENOUGH: choose another disk with run.root=FOLDER'}; "
        f"images to read {size(trial.source_bytes * scale)}"
    )
    yield f"memory: about {size(peak_bytes(trial, whole))} at the peak{_gpu()}"


def working_bytes(trial: Trial, whole: Count) -> float:
    """The most that working files may take for the whole data set, all of them on the run's disk.

    Deciding's own grow with the trial's. The other terms are bounds: what its tables hold beyond
    ``engine.memory``; then either the embeddings of pictures with near captions, which may be all, or the kept
    rows sorted for packing, which are no more than the ledger.
    """
    scale = whole.images / trial.count.images
    spilt = max(0, PAIR_BYTES * whole.pairs - trial.table_bytes)
    embeddings = trial.embedding_bytes * whole.images * trial.joins_siblings
    return trial.work_bytes * scale + max(spilt + embeddings, trial.ledger_bytes * scale)


def peak_bytes(trial: Trial, whole: Count) -> float:
    """Peak memory for the whole data set: this process, plus what deciding holds.

    That is its tables, up to ``engine.memory``, and beside them the largest of three that follow each other: arrays
    for copies, arrays for siblings, and three embeddings for each pair of the null.
    """
    tables = min(trial.table_bytes, PAIR_BYTES * whole.pairs)
    null = 3 * trial.embedding_bytes * min(whole.pairs, MAX_PAIRS)
    siblings = SIBLINGS_BYTES * whole.images * trial.joins_siblings
    return trial.peak_bytes + tables + max(COPIES_BYTES * whole.images, siblings, null)


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.max_memory_allocated():
        return ""
    return f", and {size(torch.cuda.max_memory_allocated())} on the GPU"
