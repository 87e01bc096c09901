"""Groups and copies against comparing each picture with each, on tables with many ties, crowds and mirrored copies."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.embeddings import Embeddings
from curate.decide import near, semantic
from curate.decide.config import SplitConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.measures.thumbnail import BYTES, mirrored
from curate.run.engine.inprocess import InProcess
from curate.run.engine.processes import Processes
from tests.curate.decide import naive_copies, searched

D = 6
CONFIGS = {
    "exact": (SplitConfig(hamming_distance=None), DuplicatesConfig()),
    "near": (SplitConfig(hamming_distance=3), DuplicatesConfig(hamming_distance=4)),
    "far": (SplitConfig(), DuplicatesConfig(exact=False, hamming_distance=12)),
    "semantic": (SplitConfig(hamming_distance=None), DuplicatesConfig(exact=False, cosine=0.97)),
    "all": (SplitConfig(), DuplicatesConfig(hamming_distance=2, cosine=0.97)),
}


def flipped(rng, value, most):
    chosen = rng.choice(64, rng.integers(0, most + 1), replace=False)
    return value ^ sum(1 << int(bit) for bit in chosen)


def copied(rng, old, kind):
    """What a copy of ``old`` has in common with it."""
    if kind < 0.12:  # the same file
        return old
    if kind < 0.3:  # recompressed
        new = {name: flipped(rng, old[name], 4) for name in ("phash", "turned")}
        return new | {"seen": old["seen"] + rng.integers(-6, 7, BYTES)}
    if kind < 0.4:  # mirrored
        new = {"phash": flipped(rng, old["turned"], 2), "turned": old["phash"]}
        return new | {"seen": mirrored(old["seen"][None])[0] + rng.integers(0, 2, BYTES)}
    return {"vector": old["vector"] + rng.normal(size=D) * 0.12}  # cut in another way


def pictures(seed, count=110):
    """Rows of pictures and their vectors: copies of all kinds, hubs and crowds of one hash, several rows of some."""
    rng = np.random.default_rng(seed)
    crowd = [rng.integers(0, 256, BYTES) for _ in range(3)]
    made = []
    for number in range(count):
        kind = rng.random()
        old = made[rng.integers(len(made))] if made and kind < 0.5 else None
        new = {
            "pixels": int(rng.integers(2**63)),
            "phash": int(rng.integers(2**63)),
            "turned": int(rng.integers(2**63)),
            "seen": rng.integers(0, 256, BYTES),
            "vector": rng.normal(size=D),
        }
        if old:
            new |= copied(rng, old, kind)
        elif kind > 0.85:  # a logo
            new |= {"phash": 77, "turned": 78}
            new["seen"] = crowd[rng.integers(3)] + rng.integers(-9, 10, BYTES)
        elif kind > 0.8:  # plain
            new |= {"phash": 5, "turned": 5, "seen": np.full(BYTES, rng.integers(100, 103))}
        if kind > 0.78:
            new["vector"] = np.zeros(D)
        made.append(
            new | {"key": f"k{number}", "group": rng.choice(["", "", "", "", "", "a", "é"])}
        )
    rows, vectors = [], []
    for picture in made:
        seen = np.clip(picture["seen"], 0, 255).astype(np.uint8).tobytes()
        hashes = {"phash": picture["phash"], "phash_mirrored": picture["turned"]}
        length = np.linalg.norm(picture["vector"])
        width = int(rng.choice([32, 64]))
        for index in range(rng.integers(1, 3)):
            rows.append(
                {"key": picture["key"], "pixels_sha256": f"{picture['pixels']:016x}".ljust(64, "0")}
                | {name: f"{value:016x}" for name, value in hashes.items()}
                | {"thumbnail": seen, "group": picture["group"] or None, "caption_index": index}
                | {"clip_similarity": rng.choice([0.1, 0.2, np.nan]), "width": width, "height": 64}
            )
            vectors.append(picture["vector"] / max(length, 1e-9) if index == 0 else np.zeros(D))
    return pd.DataFrame(rows), np.array(vectors, np.float32)


def embedded(folder, vectors):
    """In parts of 50 rows; a zero vector is none."""
    paths = []
    for start in range(0, len(vectors), 50):
        stored = [v.tobytes() if v.any() else None for v in vectors[start : start + 50]]
        paths.append(folder / f"{start}.parquet")
        pq.write_table(pa.table({"image_embedding": pa.array(stored, pa.binary())}), paths[-1])
    return Embeddings(paths)


def permuted(rng, rows, vectors):
    """The pictures in another order, the rows of each together."""
    keys = {key: place for place, key in enumerate(rng.permutation(rows["key"].unique()))}
    order = np.argsort(rows["key"].map(keys).to_numpy(), kind="stable")
    return rows.iloc[order].reset_index(drop=True), vectors[order]


class Backwards(InProcess):
    """Carries out the last task first, and each twice."""

    def map(self, spec, tasks, progress=lambda count: None):
        list(super().map(spec, tasks, progress))
        yield from super().map(spec, tasks[::-1], progress)


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(near, "CROWD", 4)
    monkeypatch.setattr(near, "MOST_LEADERS", 2)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_as_the_oracle(name, seed, tmp_path, small_limits):
    rows, vectors = pictures(seed)
    split, filters = CONFIGS[name]
    parts = embedded(tmp_path, vectors)
    found = searched.groups(rows, split, filters, parts)
    expected = naive_copies.groups(rows, split, filters, vectors)
    assert found.tolist() == expected.tolist()
    assert 10 < found.nunique() < rows["key"].nunique() - 3
    kept = searched.copies(rows, filters, parts)
    assert kept.tolist() == naive_copies.copies(rows, filters, vectors).tolist()
    assert (kept != "").sum() > 5


def test_neither_order_nor_buckets_nor_threads_nor_the_engine_decide(
    tmp_path, small_limits, monkeypatch
):
    rows, vectors = pictures(7)
    split, filters = CONFIGS["all"]
    parts = embedded(tmp_path, vectors)
    groups = searched.groups(rows, split, filters, parts, threads=1)
    copies = searched.copies(rows, filters, parts, threads=1)
    monkeypatch.setattr(near, "BUCKET", 16)
    monkeypatch.setattr(near, "_FEW", 0)
    rng = np.random.default_rng(0)
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        others, moved = permuted(rng, rows, vectors)
        parts = embedded(tmp_path / f"{number}", moved)
        limits = {"engine": Backwards(), "memory": 100_000_000}
        found = searched.groups(others, split, filters, parts, **limits)
        assert dict(zip(others["key"], found, strict=True)) == dict(
            zip(rows["key"], groups, strict=True)
        )
        found = searched.copies(others, filters, parts, **limits)
        assert dict(zip(others["key"], found, strict=True)) == dict(
            zip(rows["key"], copies, strict=True)
        )


def test_large_jobs_are_done_by_other_processes(tmp_path, monkeypatch):
    """With their arguments alone: what this process has changed they do not know."""
    monkeypatch.setattr(near, "_FEW", 0)
    monkeypatch.setattr(near, "BUCKET", 32)
    monkeypatch.setattr(semantic, "ALONE", 30)
    rows, vectors = pictures(3)
    filters, parts = CONFIGS["all"][1], embedded(tmp_path, vectors)
    told = []

    class Noted(Processes):
        def map(self, spec, tasks, progress=lambda count: None):
            told.append(spec.factory.partition(":")[2])
            return super().map(spec, tasks, progress)

    found = searched.copies(rows, filters, parts, engine=Noted(1))
    assert told == ["leading", "comparing", "assigning", "comparing"]
    assert found.tolist() == searched.copies(rows, filters, parts).tolist()
    assert (found != "").sum() > 5
