"""Curations in the real format, and trainings on them without a model: each notes what it was given."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from curate.pack.writer import write_shard
from curate.run import checksums, ledger
from curate.run.files import write_certified, write_text
from curate.run.joined import FOLDER
from curate.run.manifest import Manifest, read_manifest, write_funnel, write_manifest
from finetune import joined, trained_on
from finetune.config import DataConfig, RunConfig, TrainConfig
from tests.curate import small_ledgers
from tests.curate.pack.oracle import plan

ORDER = "hashed keys"


@cache
def picture(key: str) -> bytes:
    """A PNG of its own for every key; keys that differ behind a colon alone name the same file."""
    seed = int(hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:8], 16)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def sha256(key: str) -> str:
    return hashlib.sha256(picture(key)).hexdigest()


def captions(key: str) -> list[str]:
    """One, and two of keys that end with an even digit."""
    return [f"a {key}", f"the {key}"][: 2 if key[-1] in "02468" else 1]


def curate(run_dir: Path, sides: Mapping[str, str], dropped: tuple[str, ...] = ()) -> Path:
    """Shards, ledger, funnel and manifest of pictures, each with its side of the split."""
    folder = run_dir / "curate"
    rows = [_sample(key, split) for key, split in sides.items()]
    by_key = {row["key"]: row for row in rows}
    keys = {
        split: [k for k, s in sides.items() if s == split] for split in ("train", "val", "test")
    }
    plans = plan({split: found for split, found in keys.items() if found}, 8)
    infos = [
        write_shard(
            folder,
            each,
            [by_key[k] for k in each.keys],
            "png",
            "png",
            [picture(k) for k in each.keys],
        )
        for each in plans
    ]
    shard_of = {key: each.path for each in plans for key in each.keys}
    pairs = [
        _pair(key, index, caption, sides[key], shard_of[key])
        for key in sides
        for index, caption in enumerate(captions(key))
    ]
    out = {
        "kept": False,
        "rule": "clip_similarity",
        "reason": "clip_similarity < 0.2",
        "status": "dropped",
    }
    pairs += [_pair(key, 0, f"a {key}", "", "") | out for key in dropped]
    small_ledgers.write(folder / "ledger", pd.DataFrame(pairs))
    kept = sum(pair["kept"] for pair in pairs)
    totals = {"pairs_in": len(pairs), "kept": kept, "dropped": len(dropped), "unreadable": 0}
    totals["samples"] = {split: len(found) for split, found in keys.items()}
    rules = [{"rule": "clip_similarity", "dropped": len(dropped), "left": kept}]
    write_funnel(folder, {**totals, "rules": rules, "reasons": {}})
    write_manifest(folder, Manifest(tuple(infos), totals, {"split": "s"}, "png"))
    return folder


def _sample(key: str, split: str) -> dict:
    known = {"key": key, "split": split, "captions": captions(key), "sha256": sha256(key)}
    return known | {"duplicate_group": key, "source": "drawn", "width": 8, "height": 8}


def _pair(key: str, index: int, caption: str, split: str, shard: str) -> dict:
    row = dict.fromkeys(ledger.COLUMNS, "")
    row |= {
        "key": key,
        "caption_index": index,
        "caption": caption,
        "source": "drawn",
        "split": split,
    }
    row |= {"sha256": sha256(key), "width": 8, "height": 8, "bytes": 1, "clip_similarity": 0.3}
    return row | {
        "kept": True,
        "status": "kept",
        "shard": shard,
        "duplicate_group": key,
        "copy_group": key,
        "file_name": f"cats/{key}.png",
        "licence": "CC BY 4.0" if key[-1] in "13579" else "",
        "author": "Ann *A*" if key[-1] in "13579" else "",
    }


def _join(place: Path, runs: Mapping[str, float]) -> None:
    """List the shards of several curations, as a training does."""
    where = RunConfig(str(place.parents[1]), place.parent.name)
    config = TrainConfig(run=where, data=DataConfig(runs=dict(runs)))
    joined.keep(config, joined.read(config))


def train(
    run_dir: Path,
    start: str = "",
    data_run: str | None = None,
    own_table: bool = True,
    steps: tuple[int, ...] = (2, 8),
    init: str | None = None,
    runs: Mapping[str, float] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """What a training leaves that is looked at here: its table, identity, checkpoints and an export.

    It began with ``start``, whose weights have the sha256 ``init``; ``runs`` are several curations with weights,
    ``settings`` more of its identity.
    """
    curate_dir = (run_dir.with_name(data_run) if data_run else run_dir) / "curate"
    if runs:
        curate_dir = run_dir / FOLDER
        _join(curate_dir, runs)
    manifest, folder = read_manifest(curate_dir), run_dir / "finetune"
    data = f"data:\n  run: {data_run or 'null'}\n  runs: {json.dumps(dict(runs or {}))}\n"
    config = f"{data}method:\n  name: lora\n  rank: 4\n  init: {start or 'null'}\n"
    model = "model:\n  path: stable-diffusion-v1-5/stable-diffusion-v1-5\n  resolution: 512\n"
    write_text(folder / "config.yaml", f"{config}{model}train:\n  samples: 32\n  seed: 0\n")
    identity = {"shards": manifest.digest(), "order": ORDER, "train.seed": 0, "weights": "b" * 64}
    identity |= {"init": init, **(settings or {})}
    if own_table:
        trained_on.write(folder, curate_dir, manifest, manifest.digest())
    for step in steps:
        path = folder / "checkpoints" / f"step-{step:08d}"
        path.mkdir(parents=True)
        (path / "weights.safetensors").write_bytes(f"{run_dir.name} {step}".encode())
        checksums.write(path)
        state = {"step": step, "samples_seen": 4 * step, "identity": identity, "stopped": None}
        write_certified(path / "state.json", {**state, "heldout": 0.9})
    export = folder / "export"
    export.mkdir()
    (export / "pytorch_lora_weights.safetensors").write_bytes(f"{run_dir.name} weights".encode())
    write_text(export / "checkpoint.json", '{"step": 8}')
    return folder
