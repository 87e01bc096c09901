"""Seconds and memory to filter and split a million annotated pairs, from their annotations to the ledger."""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workflows.bench.compare import say
from workflows.bench.data import WORDS

ROWS, ROWS_PER_PART, DIMENSIONS = 1_000_000, 2_500, 64


def run() -> None:
    """Print the time and the memory, with the rules of ``filters=default``."""
    from curate.annotate.spec import AnnotationSpec
    from curate.decide.config import SplitConfig
    from curate.decide.stage import judge
    from curate.filters.caption import CaptionFilterConfig
    from curate.filters.config import FiltersConfig
    from curate.filters.image import ImageFilterConfig
    from curate.filters.prefilter import Prefilter
    from curate.filters.similarity import ClipSimilarityConfig
    from curate.run.database import Limits
    from curate.run.engine.inprocess import InProcess
    from curate.run.removals import Removals

    filters = FiltersConfig(
        image=ImageFilterConfig(max_aspect=3.0),
        caption=CaptionFilterConfig(max_characters=1000),
        clip_similarity=ClipSimilarityConfig(false_keep_rate=0.1),
    )
    spec = AnnotationSpec("bench", Prefilter(filters.image, filters.caption))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = [_part(folder, start) for start in range(0, ROWS, ROWS_PER_PART)]
        before, started = peak_bytes(), time.perf_counter()
        with judge(
            parts,
            spec,
            {},
            filters,
            SplitConfig(),
            Removals(),
            engine=InProcess(),
            folder=folder,
            limits=Limits(folder / "scratch"),
        ) as verdicts:
            decided = time.perf_counter()
            kept = verdicts.ledger.count("kept")
    say(f"\ndeciding {ROWS:,} pairs, {kept:,} kept")
    say(f"  deciding, with the ledger {decided - started:6.1f} s")
    say(f"  more memory at the peak   {(peak_bytes() - before) / 1e6:6.0f} MB")


def peak_bytes() -> int:
    """The peak memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # see getrusage(2) of either
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _part(folder: Path, start: int) -> Path:
    """A part file of annotations; every tenth picture is a copy of the one before it."""
    from curate.measures.thumbnail import BYTES

    rng = np.random.default_rng(start)
    numbers = np.arange(start, start + ROWS_PER_PART)
    images = _unit(rng.normal(size=(ROWS_PER_PART, DIMENSIONS)))
    texts = _unit(images + 0.5 * rng.normal(size=images.shape))
    pictures = numbers - (numbers % 10 == 9)
    hashes = [hashlib.sha256(b"%d" % number).hexdigest() for number in pictures]
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (ROWS_PER_PART, 10))]
    columns = {
        "key": [f"{number:09d}" for number in numbers],
        "caption": [" ".join(chosen) for chosen in words],
        "location": [f"images/{number:09d}.jpg" for number in numbers],
        "sha256": hashes,
        "pixels_sha256": hashes,
        "phash": [hashed[:16] for hashed in hashes],
        "phash_mirrored": [hashed[16:32] for hashed in hashes],
        "thumbnail": [hashlib.shake_256(hashed.encode()).digest(BYTES) for hashed in hashes],
        "width": rng.integers(200, 1000, ROWS_PER_PART).astype(np.int32),
        "height": rng.integers(200, 1000, ROWS_PER_PART).astype(np.int32),
        "bytes": rng.integers(5_000, 90_000, ROWS_PER_PART),
        "clip_similarity": (images * texts).sum(axis=1).astype(np.float32),
        "image_embedding": [row.tobytes() for row in images.astype(np.float32)],
        "text_embedding": [row.tobytes() for row in texts.astype(np.float32)],
    }
    same = {"source": "bench", "version": "1", "format": "JPEG", "error": "", "clip_model": "x"}
    columns |= {name: [value] * ROWS_PER_PART for name, value in same.items()}
    columns |= {"caption_index": np.zeros(ROWS_PER_PART, np.int32)}
    columns |= {"has_caption": np.ones(ROWS_PER_PART, bool)}
    path = folder / f"part-{start:09d}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
