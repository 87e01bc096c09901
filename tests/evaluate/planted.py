"""Runs that are judged without a model: a small curation, losses with planted means, and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.run import checksums, parquet
from curate.run.manifest import read_manifest
from evaluate import results
from evaluate.judged_runs import against
from evaluate.measure.grid import LossStore
from evaluate.measure_config import GridConfig, RunConfig
from evaluate.results import Results, label_of
from tests.finetune.conftest import curate, picture

SETTINGS = {
    "grid": {"items": 128, "bins": 3, "draws": 2, "seed": 0, "batch_size": 64},
    "sampler": {"name": "ddim", "steps": 3, "guidance_scale": 5.0, "timestep_spacing": "trailing"},
    "samples": {"rows": 12, "clip_captions": 64, "seed": 0, "batch_size": 16},
    "clip": {"name": "tiny"},
}
ORIGIN = {"base": "b" * 64, "latents": "l" * 64, "noise": "n" * 64}
KEPT = 20


def table(
    keys: Sequence[str], shift: float = 0.0, noise: float = 0.01, seed: int = 0
) -> np.ndarray:
    """[N, 3, 2] float32: levels differ tenfold, pictures by a quarter, and every one is changed by ``shift``.

    The pictures' own sizes follow from their keys alone, so that two runs agree on them.
    """
    own = np.array([np.random.default_rng([*key.encode()]).lognormal(0, 0.25) for key in keys])
    levels = np.array([0.1, 0.3, 1.0])
    cells = (1 + shift + np.random.default_rng(seed).normal(0, noise, (len(keys), 3, 2))) * 1.0
    return (own[:, None, None] * levels[:, None] * cells).astype(np.float32)


class Planted:
    """Makes judged runs below one folder."""

    def __init__(self, root: Path, found: Results) -> None:
        self.root, self.found = root, found

    def curate(self, name: str, train: int = 6, val: int = 40, test: int = 0) -> Path:
        """A curation of random pictures, as a run of its own."""
        sides = {"train": train, "val": val, "test": test}
        folder = self.root / name / "curate"
        curate(folder, {side: count for side, count in sides.items() if count}, max_samples=100)
        return folder

    def run(
        self,
        name: str,
        shift: float = 0.0,
        *,
        data: str = "data",
        seed: int = 1,
        base: float = 0.0,
        keys: Mapping[str, Sequence[str]] | None = None,
        origin: Mapping[str, str] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        finetune: Mapping[str, Any] | None = None,
        kept: int = KEPT,
        losses: Mapping[str, np.ndarray] | None = None,
        scores: Mapping[str, tuple[str, Sequence[str], np.ndarray, str]] | None = None,
        drawn: Sequence[str] = (),
    ) -> Path:
        """A judged run whose kept checkpoint changes the base's losses by ``shift``, noise aside."""
        folder = self.root / name
        if data != name:
            (folder / "finetune").mkdir(parents=True)
            (folder / "finetune" / "config.yaml").write_text(f"data:\n  run: {data}\n")
        manifest = read_manifest(self.root / data / "curate")
        store = LossStore(folder / "evaluate" / "losses.npz")
        sides = keys or {"val": [f"val-{i:03d}" for i in range(40)]}
        for split, chosen in sides.items():
            store.put_keys(split, chosen)
            store.losses(f"{split}/{0:08d}", "f", lambda chosen=chosen: table(chosen, base, 0))
            if kept:
                measured = (losses or {}).get(split, table(chosen, shift, seed=seed))
                store.losses(f"{split}/{kept:08d}", "f", lambda measured=measured: measured)
        store.put_origin({**ORIGIN, "shards": manifest.digest(), **(origin or {})})
        for metric, (on, of, values, instrument) in (scores or {}).items():
            store.put_scores(metric, on, of, values, instrument)
        store.save()
        evaluate = {
            group: {**SETTINGS[group], **(settings or {}).get(group, {})} for group in SETTINGS
        }
        provenance = {
            **self.found.provenance,
            "evaluate": evaluate,
            "finetune": {"run": {"name": name}, "optim": {"lr": 1e-4}, **(finetune or {})},
        }
        verdict = replace(self.found.verdict, kept=kept)
        results.save(
            replace(self.found, run=name, verdict=verdict, provenance=provenance),
            folder / "evaluate" / "report.json",
        )
        for number, key in enumerate(drawn):
            path = folder / "evaluate" / "samples" / label_of(kept) / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
        checksums.write(folder / "evaluate")
        return folder


def rewrite(curate_dir: Path, split: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the rows of a split's sidecar."""
    path = next((curate_dir / "shards" / split).glob("*.parquet"))
    rows = change(pd.read_parquet(path))
    parquet.write_table(path, pa.Table.from_pandas(rows, preserve_index=False))


def opened_against(
    runs: Planted,
    name: str | None = "old",
    of: str = "new",
    data: str = "data",
    precision: str = "no",
    **grid: int,
) -> against.Against | None:
    """The run ``name``, as an evaluation of ``of`` opens it, which has no report yet."""
    if data != of:
        finetune = runs.root / of / "finetune"
        finetune.mkdir(parents=True, exist_ok=True)
        (finetune / "config.yaml").write_text(f"data:\n  run: {data}\n")
    config = SimpleNamespace(
        run=RunConfig(str(runs.root), of),
        grid=GridConfig(**{"bins": 3, "draws": 2, **grid}),
        precision=precision,
    )
    return against.opened(name, config)  # type: ignore[arg-type]
