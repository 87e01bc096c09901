"""Seconds and memory of a training's start on a million cached pairs, in a process of its own.

Latents are one number each, so that the disk plays no part: what is measured is keys, captions, hashes and the order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.bench.compare import say

if TYPE_CHECKING:
    from curate.run.manifest import ShardInfo
    from finetune.conditioning import Conditioning

PAIRS, SHARD = 1_000_000, 10_000
_CODE = """
import json, sys, time
from pathlib import Path
from workflows.bench.million import start
print(json.dumps(start(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def run() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), PAIRS)
        command = [sys.executable, "-c", _CODE, folder, str(PAIRS)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    before, after, seconds = json.loads(done.stdout.splitlines()[-1])
    say(f"\nstart on {PAIRS:,} cached pairs, one caption each")
    say(
        f"  {seconds:.1f} s to the first batch; memory {before:.0f} MiB before, {after:.0f} MiB at the peak"
    )


def write(folder: Path, pairs: int) -> None:
    """A cache of ``pairs`` pairs with latents of one number, and 1,000 captions."""
    import hashlib

    import torch

    from finetune.cache.folders import captions_folder, latents_folder
    from finetune.cache.framing import Framing
    from finetune.cache.listing import Listing, listing_path, write_listing
    from finetune.cache.packs import ENTRIES, content_hash, write_pack

    model, infos = _model(), shards(pairs)
    (view,) = Framing(folder).views(model.resolution, infos[0])("")
    latents = latents_folder(model, folder, view)
    conditioning = captions_folder(model, folder)
    texts = [f"a caption of number {n}" for n in range(1000)]
    write_pack(
        conditioning,
        [content_hash(t.encode()) for t in texts],
        {"hidden": torch.zeros(1000, 1, 1).half()},
    )
    for number, info in enumerate(infos):
        names = range(number * SHARD, (number + 1) * SHARD)
        digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
        for start in range(0, SHARD, ENTRIES):
            part = digests[start : start + ENTRIES]
            write_pack(latents, part, {"latent": torch.zeros(len(part), 1, 1, 1)})
        captions = [(texts[name % 1000],) for name in names]
        write_listing(
            listing_path(folder, info), Listing([f"{n:09d}" for n in names], digests, captions)
        )


def shards(pairs: int) -> list[ShardInfo]:
    """What a manifest says of them."""
    from curate.run.manifest import ShardInfo

    return [
        ShardInfo(f"shards/train/{n:06d}.tar", "train", SHARD, 0, f"{n:064x}")
        for n in range(pairs // SHARD)
    ]


def start(folder: Path, pairs: int) -> list[float]:
    """MiB before, MiB at the peak, and seconds until the first batch is there."""
    import time

    from finetune.cache import encode_shards, load_split
    from finetune.data import Batches

    infos, before = shards(pairs), _peak()
    started = time.perf_counter()
    model = _model()
    encode_shards(model, folder, infos, folder, progress=False)
    split = load_split(model, infos, folder)
    batches = Batches(split, batch_size=16, caption_dropout=0.1, timesteps=1000, seed=0)
    assert len(batches(0).keys) == 16
    return [before, _peak(), time.perf_counter() - started]


def _peak() -> float:
    import re

    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


class _Model:
    """As much of a model as its cache asks for."""

    resolution = 8

    def image_fingerprint(self) -> str:
        """Of no VAE."""
        return "images"

    def caption_fingerprint(self) -> str:
        """Of no text encoder."""
        return "captions"

    def encode_captions(self, captions: list[str]) -> Conditioning:
        """Zeros."""
        import torch

        from finetune.conditioning import Conditioning

        return Conditioning({"hidden": torch.zeros(len(captions), 1, 1)})


def _model() -> Any:
    return _Model()
