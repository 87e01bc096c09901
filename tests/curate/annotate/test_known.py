"""The index of what is known: the answers of a dictionary, whatever its memory and threads."""

import hashlib
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.hash_index import HashIndex
from curate.annotate.known import PLACE_BITS, Known, candidate_found_by, found_by, index
from curate.annotate.parts import METADATA
from curate.run import parquet
from curate.run.database import Limits

TEXTS = ["", "a cat", "ünï 猫", "it's", 'a "quote"', "\\", "x" * 999, "\U0001f600"]


def drawn_part(draw, rows):
    """Rows of few different keys, hashes and captions."""
    columns = {name: [] for name in ("key", "version", "sha256", "pixels_sha256", "caption")}
    columns |= {"caption_index": [], "clip_similarity": []}
    for _ in range(rows):
        columns["key"].append(f"k{draw.randrange(9)}")
        columns["version"].append(draw.choice(["", "1", "2 3"]))
        columns["sha256"].append(hashlib.sha256(bytes([draw.randrange(9)])).hexdigest())
        columns["pixels_sha256"].append(draw.choice(["", "p"]))
        columns["caption"].append(draw.choice(TEXTS))
        columns["caption_index"].append(draw.randrange(2))
        columns["clip_similarity"].append(draw.choice([None, 0.5]))
    table = pa.table(columns).set_column(
        6, "clip_similarity", pa.array(columns["clip_similarity"], pa.float32())
    )
    return table.replace_schema_metadata({METADATA: json.dumps({"format": 4})})


def expected(tables, marked):
    found = {"candidates": {}, "contents": {}, "captions": {}}
    for number, table in enumerate(tables):
        for row, values in enumerate(table.to_pylist()):
            place = (number << PLACE_BITS) + row
            if values["caption_index"] == 0 and number not in marked:
                name = candidate_found_by(values["key"], values["version"])
                found["candidates"][name] = place
            if values["caption_index"] == 0 and values["pixels_sha256"]:
                found["contents"][found_by(values["sha256"])] = place
            if values["clip_similarity"] is not None:
                found["captions"][found_by(values["caption"])] = place
    return found


@pytest.mark.parametrize(("threads", "seed"), [(1, 0), (2, 1)])
def test_the_latest_entry_of_each_hash_is_found(tmp_path, threads, seed):
    draw, tables, paths, marked = random.Random(seed), [], [], {2}
    for number in range(6):
        table = drawn_part(draw, draw.randrange(1, 12))
        path = tmp_path / f"part-{number}{'.reread' if number in marked else ''}.parquet"
        if number in (1, 4):  # of an earlier release: no checksum, another name
            old = ["pixels" if n == "pixels_sha256" else n for n in table.column_names]
            named = table.rename_columns(old) if number == 4 else table
            pq.write_table(named.replace_schema_metadata(table.schema.metadata), path)
        else:
            parquet.write_table(path, table)
        tables.append(table)
        paths.append(path)
    known = index(paths, tmp_path / "index", Limits(tmp_path / "s", 100_000_000, threads))
    assert known.parts == tuple(paths)
    for kind, wanted in expected(tables, marked).items():
        names, places = known.opened(kind)
        assert isinstance(names.base, np.memmap)
        assert names.tolist() == sorted(wanted)
        assert places.tolist() == [wanted[name] for name in sorted(wanted)]
        found = HashIndex(known.opened(kind))
        assert {name: found.find(name) for name in wanted} == wanted
        assert found.find(found_by("nowhere")) is None


def test_nothing_known_has_no_files(tmp_path):
    known = index([], tmp_path / "index", Limits(tmp_path / "s"))
    assert known == Known()
    assert [known.opened(kind) for kind in ("candidates", "contents", "captions")] == [None] * 3
    part = drawn_part(random.Random(0), 3).slice(0, 0)
    parquet.write_table(tmp_path / "part.parquet", part)
    assert (
        index([tmp_path / "part.parquet"], tmp_path / "i", Limits(tmp_path / "s")).opened(
            "contents"
        )
        is None
    )


def test_what_is_added_goes_before_the_base_and_is_forgotten_at_once():
    base = (np.array([1, 5], np.uint64), np.array([10, 50]))
    found = HashIndex(base, most=3)
    found.add(np.array([5, 7], np.uint64), np.array([51, 70]))
    assert [found.find(name) for name in (1, 5, 7, 9)] == [10, 51, 70, None]
    found.add(np.array([8, 9], np.uint64), np.array([80, 90]))
    found.add(np.array([6], np.uint64), np.array([60]))
    assert [found.find(name) for name in (1, 5, 6, 9)] == [10, 50, 60, None]
