"""The table says of each picture on which side it was, also after shards and ledger have lost it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from curate.run import parquet
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import trained_on


@pytest.fixture
def curation(tmp_path, random_curation):
    curate, _ = random_curation
    folder = tmp_path / "runs" / "mine" / "curate"
    curate(folder, {"train": 12, "val": 6, "test": 3})
    return folder


def test_each_picture_has_its_side_and_its_number_of_captions(curation):
    own = curation.parent / "finetune"
    trained_on.write(own, curation, read_manifest(curation), "abc")
    table, shards = trained_on.read(own)
    rows = {row["key"]: row for row in table.to_pylist()}
    assert shards == "abc"
    assert len(rows) == table.num_rows == 21
    first = {"key": "train-000", "sha256": f"{0:064x}", "source": "random", "split": "train"}
    assert rows["train-000"] == first | {
        "shard": "shards/train/000000.tar",
        "run": "",
        "captions": 1,
    }
    # the thirteenth picture is the first of the second side, and every second has two captions
    assert (rows["val-001"]["split"], rows["val-001"]["captions"]) == ("val", 2)
    assert {key: row["split"] for key, row in rows.items()} == {
        key: key.split("-")[0] for key in rows
    }


def test_the_curation_of_another_run_is_named(curation):
    other = curation.parent.with_name("slow") / "finetune"
    trained_on.write(other, curation, read_manifest(curation), "abc")
    assert set(trained_on.read(other)[0]["run"].to_pylist()) == {"mine"}


def test_it_does_not_follow_what_the_curation_becomes(curation, tmp_path):
    trained_on.write(tmp_path, curation, read_manifest(curation), "abc")
    for path in curation.rglob("*.parquet"):
        path.unlink()
    table, _ = trained_on.read(tmp_path)
    assert table.num_rows == 21


def test_sidecars_of_other_programs_may_lack_columns(curation, tmp_path):
    import pyarrow.parquet as pq

    for path in curation.rglob("*.parquet"):
        pq.write_table(pq.read_table(path).select(["key"]), path)
    trained_on.write(tmp_path, curation, read_manifest(curation), "abc")
    table, _ = trained_on.read(tmp_path)
    assert set(table["sha256"].to_pylist()) == {""}
    assert set(table["captions"].to_pylist()) == {1}


def test_no_shards_no_rows(curation):
    manifest = replace(read_manifest(curation), shards=())
    assert trained_on.table(curation, manifest, "abc").num_rows == 0


def test_none_and_a_damaged_one(curation, tmp_path):
    assert trained_on.read(tmp_path) is None
    trained_on.write(tmp_path, curation, read_manifest(curation), "abc")
    path = tmp_path / trained_on.FILE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"trained_on\.parquet is damaged"):
        trained_on.read(tmp_path)


def test_a_training_writes_it_with_the_shards_of_its_checkpoints(make_config, run_training):
    config = make_config(method="lora")
    run_training(config)
    table, shards = trained_on.read(config.folder)
    state = config.folder / "checkpoints" / "last" / "state.json"
    assert shards == json.loads(state.read_text())["identity"]["shards"]
    assert table["split"].to_pylist().count("train") == 12


def without(curation, side, *keys):
    """Take rows out of a side's tables, as a removal does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in (curation / "shards" / side).glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(
            table.filter(pa.array(k not in keys for k in table["key"].to_pylist())), path
        )


def test_what_was_removed_since_is_known(curation):
    own = curation.parent / "finetune"
    trained_on.write(own, curation, read_manifest(curation), "abc")
    assert trained_on.removed_since(own, curation, "abc").num_rows == 0
    without(curation, "train", "train-003")
    without(curation, "val", "val-001")
    gone = trained_on.removed_since(own, curation, "abc")
    found = sorted(zip(gone["key"].to_pylist(), gone["split"].to_pylist(), strict=True))
    assert found == [("train-003", "train"), ("val-001", "val")]


def test_another_curation_is_not_taken_for_one_with_less(curation, tmp_path):
    own = curation.parent / "finetune"
    assert trained_on.removed_since(own, curation, "abc") is None  # no table
    without(curation, "train", "train-003")
    trained_on.write(own, curation, read_manifest(curation), "abc")
    assert trained_on.removed_since(own, curation, "other") is None  # of other data
    rows, _ = trained_on.read(own)
    parquet.write_table(own / trained_on.FILE, rows.slice(1))  # so the curation has one more
    assert trained_on.removed_since(own, curation, "abc") is None
