"""Megabytes per second of writing shards, compared with `tar`, and the cost of recognising written ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.bench.compare import Variants, compare
from workflows.bench.data import WORDS, Photographs

if TYPE_CHECKING:
    import pandas as pd

PICTURES = 2000
PAIRS = 200_000


def run() -> None:
    """Print rates and ratios."""
    _writing()
    _recognising()


def _writing() -> None:
    """Both variants fsync; ours also hashes."""
    from curate.pack.plan import plan
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
        [planned] = plan({"train": [row["key"] for row in rows]}, PICTURES)
        by_key = {row["key"]: row for row in rows}
        ordered = [by_key[key] for key in planned.keys]

        def read(row: dict[str, Any]) -> bytes:
            return (folder / "pictures" / f"{row['key']}.jpg").read_bytes()

        def ours() -> None:
            write_shard(folder, planned, ordered, "a digest", "jpg", map(read, ordered))

        def tar() -> None:
            target = folder / "copy.tar"
            subprocess.run(["tar", "cf", target, "-C", folder, "pictures"], check=True)
            with target.open("rb+") as stream:
                os.fsync(stream.fileno())

        variants: Variants = {"ours": ours, "tar": tar}
        compare(f"sharding {PICTURES:,} pictures", variants, round(megabytes), "MB")


def _recognising() -> None:
    """Digests of all shards, by column and, as versions before did, of each shard's rows as JSON."""
    from curate.pack.plan import plan
    from curate.pack.samples import Samples

    samples = Samples(_ledger())
    plans = plan(samples.sides(), 1000)

    def by_row() -> None:
        for planned in plans:
            hashlib.blake2b(json.dumps(samples.rows(planned.keys), sort_keys=True).encode())

    variants: Variants = {"by column": lambda: samples.digests(plans, "jpg"), "by row": by_row}
    compare(f"recognising the shards of {PAIRS:,} pairs", variants, PAIRS, "pairs")


def _ledger() -> pd.DataFrame:
    """Kept pairs of as many pictures, with the columns of a small data set."""
    import pandas as pd

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
