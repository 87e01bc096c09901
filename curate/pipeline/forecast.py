"""Scale a trial to the whole data set: pairs kept, with an interval, and time, disk and memory."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.decide.shuffled_captions import MAX_PAIRS
from curate.decide.stage import Verdicts
from curate.run.intervals import wilson
from curate.run.units import duration, size

COPIES = 2.5
"""Memory of judging and packing as a multiple of the annotations' frame.

Measured as the increase from 20,000 to 60,000 pairs (2.8) and from there to 180,000 (2.4), with one
caption per image.
"""
INDEX_BYTES = 85  # per pair, in annotate's four indexes; 64 measured, 85 at the peak of a merge


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
        start_s: seconds to load the model and score the first images.
        image_s: seconds per image after that.
        kept_s: seconds to read again and pack one kept image.
        source_bytes: size of the image files.
        annotation_bytes: size of the annotations on disk.
        shard_bytes: size of the kept samples in tars.
        frame_bytes: size of the annotations in memory, without embeddings.
        embedding_bytes: size of the embedding of one image or caption.
        peak_bytes: peak memory of this process so far.
    """

    count: Count
    verdicts: Verdicts
    start_s: float
    image_s: float
    kept_s: float
    source_bytes: int
    annotation_bytes: int
    shard_bytes: int
    frame_bytes: int
    embedding_bytes: int
    peak_bytes: int

    @property
    def kept_images(self) -> int:
        """Images with a kept caption."""
        table = self.verdicts.ledger
        return int(table.loc[table["kept"], "key"].nunique())


def lines(trial: Trial, whole: Count, folder: Path) -> Iterator[str]:
    """The trial's figures, scaled to the whole data set, as lines for the terminal."""
    seen = trial.count
    yield (
        f"dry run: {seen.images:,} of {whole.images:,} images ({seen.pairs:,} of {whole.pairs:,} pairs), "
        "chosen by hash"
    )
    yield from _dropped(trial, whole)
    cut, cut_by = trial.verdicts.cut, trial.verdicts.cut_by
    yield f"cut: {cut_by}" if cut is None else f"cut: similarity >= {cut:.4f} ({cut_by})"
    kept_pairs = int(trial.verdicts.ledger["kept"].sum())
    yield _kept("pairs", kept_pairs / seen.pairs, seen.images, whole.pairs)
    yield _kept("images", trial.kept_images / seen.images, seen.images, whole.images)
    yield "  95% Wilson intervals over images, without duplicates that only the whole data set would show"
    yield from _costs(trial, whole, folder)
    yield f"results: {folder.parent}; try python -m curate.calibrate {shlex.quote(str(folder.parent))}"


def _dropped(trial: Trial, whole: Count) -> Iterator[str]:
    yield f"{'rule':<24}{'dropped':>8}{'share':>9}{'of all pairs':>15}"
    for rule, dropped in trial.verdicts.steps:
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
    written = (trial.shard_bytes + trial.annotation_bytes) * scale
    free = shutil.disk_usage(folder).free
    yield (
        f"disk: shards {size(trial.shard_bytes * scale)}, annotations "
        f"{size(trial.annotation_bytes * scale)}; {size(free)} free"
        f"{'' if written < free else ', NOT ENOUGH: choose another disk with run.root=FOLDER'}; "
        f"images to read {size(trial.source_bytes * scale)}"
    )
    yield f"memory: about {size(peak_bytes(trial, whole))} at the peak{_gpu()}"


def peak_bytes(trial: Trial, whole: Count) -> float:
    """Peak memory for the whole data set: this process, plus what grows with the number of pairs.

    That is the larger of two: annotating holds the indexes; judging, which starts after they are
    freed, holds the frame and three embeddings for each pair of the null.
    """
    frame = COPIES * trial.frame_bytes * whole.pairs / trial.count.pairs
    null = 3 * trial.embedding_bytes * min(whole.pairs, MAX_PAIRS)
    return trial.peak_bytes + max(INDEX_BYTES * whole.pairs, frame + null)


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.max_memory_allocated():
        return ""
    return f", and {size(torch.cuda.max_memory_allocated())} on the GPU"
