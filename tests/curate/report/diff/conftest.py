"""Two finished curations with planted changes, put together from one."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

HOSTILE = "</script><img src=x onerror=alert(1)> \"'> `$x` \u202e"


def edit_ledger(curate_dir, change):
    """Rewrite a run's ledger as one file; ``change`` gets the rows as a frame with the keys as index."""
    parts = sorted((curate_dir / "ledger").iterdir())
    rows = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    for part in parts:
        part.unlink()
    change(rows).to_parquet(curate_dir / "ledger/part-00000.parquet", index=False)
    return curate_dir


def plant(rows):
    """k05 dropped, k03 kept, k07 with a hostile caption, k08 replaced, k09 renamed, k10 gone, k30 added, k11 moved."""
    rows = rows[rows["key"] != "k10"].copy()
    rows["clip_similarity"] = rows["clip_similarity"].astype(np.float32)
    drop = {"kept": False, "status": "dropped", "split": "", "shard": ""}
    keep = {"kept": True, "rule": "", "reason": "", "status": "kept", "split": "train"}
    for key, values in {
        "k05": drop | {"rule": "clip_similarity", "reason": "clip_similarity < 0.31"},
        "k03": keep | {"shard": "shards/train/000000.tar"},
        "k07": {"caption": HOSTILE},
        "k08": {"sha256": "0" * 64},
        "k09": {"key": "renamed"},
        "k11": {"split": "val"},
    }.items():
        rows.loc[rows["key"] == key, list(values)] = list(values.values())
    added = rows[rows["key"] == "k12"].assign(key="k30", sha256="1" * 64, caption="a new one")
    return pd.concat([rows, added], ignore_index=True)


@pytest.fixture
def edit():
    return edit_ledger


@pytest.fixture
def two_runs(finished):
    """The folders ``curate`` of the runs ``done`` and ``later``, the second with the changes of ``plant``."""
    for name, rule in (("done", 0.29), ("later", 0.31)):
        curate_dir = finished.parents[1] / name / "curate"
        if name == "later":
            shutil.copytree(finished, curate_dir)
            edit_ledger(curate_dir, plant)
        dataset = {
            "name": "drawn",
            "reader": "folder",
            "root": str(finished.parents[2] / "pictures"),
        }
        filters = {"clip_similarity": {"minimum": rule}, "columns": {}}
        config = {
            "run": {"name": name},
            "dataset": dataset,
            "filters": filters,
            "provenance": {"python": "3.11"},
        }
        (curate_dir / "config.yaml").write_text(json.dumps(config))
    return finished, finished.parents[1] / "later" / "curate"
