"""Megabytes per second of writing shards, compared with `tar` on the same files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from workflows.bench.compare import Variants, compare
from workflows.bench.data import Photographs

PICTURES = 2000


def run() -> None:
    """Print rates and ratios. Both variants fsync; ours also hashes."""
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
