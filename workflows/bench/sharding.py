"""Megabytes per second of writing shards, compared with `tar`, and the cost of recognising written ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workflows.bench.compare import Variants, compare
from workflows.bench.data import WORDS, Photographs

PICTURES = 2000
PAIRS = 200_000


def run() -> None:
    """Print rates and ratios."""
    _writing()
    _recognising()


def _writing() -> None:
    """Both variants fsync; ours also hashes."""
    from curate.pack.plan import Plan
    from curate.pack.writer import write_shard

    source = Photographs(PICTURES).source()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pictures").mkdir()
        rows = []
        for candidate in source.candidates():
            data = source.load(candidate.location)
            (folder / "pictures" / f"{candidate.key}.jpg").write_bytes(data)
            (folder / "pictures" / f"{candidate.key}.txt").write_text(candidate.captions[0])
            (folder / "pictures" / f"{candidate.key}.json").write_text("{}")
            rows.append({"key": candidate.key, "captions": list(candidate.captions), "width": 640})
        megabytes = sum(p.stat().st_size for p in (folder / "pictures").iterdir()) / 1e6
        planned = Plan("shards/train/000000.tar", "train", PICTURES)

        def read(row: dict[str, Any]) -> bytes:
            return (folder / "pictures" / f"{row['key']}.jpg").read_bytes()

        def ours() -> None:
            write_shard(folder, planned, rows, "a digest", "jpg", map(read, rows))

        def tar() -> None:
            target = folder / "copy.tar"
            subprocess.run(["tar", "cf", target, "-C", folder, "pictures"], check=True)
            with target.open("rb+") as stream:
                os.fsync(stream.fileno())

        variants: Variants = {"ours": ours, "tar": tar}
        compare(f"sharding {PICTURES:,} pictures", variants, round(megabytes), "MB")


def _recognising() -> None:
    """Sorting the rows of all shards on the disk, then their digests by column and, as versions before did, by row."""
    from curate.pack.config import ShardsConfig
    from curate.pack.numbering import numbered, plan
    from curate.pack.samples import Samples
    from curate.pack.sorting import SortedRows, sort_rows
    from curate.run import ledger
    from curate.run.database import Limits
    from curate.run.ledger_table import ledger_table

    with tempfile.TemporaryDirectory() as temporary:
        folder, config = Path(temporary), ShardsConfig()
        columns = dict.fromkeys(ledger.COLUMNS, "") | dict(_ledger())
        whole = pd.DataFrame(columns)
        parts = []
        for start in range(0, PAIRS, ledger.ROWS_PER_PART):
            some = whole.iloc[start : start + ledger.ROWS_PER_PART]
            parts.append(folder / "ledger" / f"part-{len(parts):05d}.parquet")
            ledger.write_part(parts[-1], some, pa.Schema.from_pandas(some, preserve_index=False))
        rows = SortedRows(folder / "samples", config.order)
        with (
            ledger_table(parts, Limits(folder / "scratch")) as table,
            numbered(table, config.order) as number,
        ):
            planned = plan(table, number, config)

            def sort() -> None:
                sort_rows(table, ledger.schema(parts[0]), number, planned, rows)

            compare(f"sorting {PAIRS:,} pairs", {"by shard": sort}, PAIRS, "pairs")
        shards = [Samples(rows.read(each.place)) for each in planned.plans()]

    def by_column() -> None:
        for samples in shards:
            samples.digest("jpg")

    def by_row() -> None:
        for samples in shards:
            hashlib.blake2b(json.dumps(samples.rows(), sort_keys=True).encode())

    variants: Variants = {"by column": by_column, "by row": by_row}
    compare(f"recognising the shards of {PAIRS:,} pairs", variants, PAIRS, "pairs")


def _ledger() -> pd.DataFrame:
    """Kept pairs of as many pictures, with the columns of a small data set."""
    rng = np.random.default_rng(0)
    hashes = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(PAIRS)]
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (PAIRS, 10))]
    columns = {
        "key": [f"{number:09d}" for number in range(PAIRS)],
        "caption": [" ".join(chosen) for chosen in words],
        "sha256": hashes,
        "phash": [digest[:16] for digest in hashes],
        "duplicate_group": [digest[:16] for digest in hashes],
        "url": [f"https://example.org/{digest}.jpg" for digest in hashes],
        "width": rng.integers(200, 1000, PAIRS).astype(np.int32),
        "height": rng.integers(200, 1000, PAIRS).astype(np.int32),
        "bytes": rng.integers(5_000, 90_000, PAIRS),
        "clip_similarity": rng.random(PAIRS).astype(np.float32),
    }
    same = {"caption_index": 0, "kept": True, "split": "train", "format": "JPEG", "source": "bench"}
    return pd.DataFrame(columns).assign(**same)
