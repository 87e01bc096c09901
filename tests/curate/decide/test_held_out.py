"""The table of held-out pictures: made, merged, written, and refused where it is wrong."""

import hashlib

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.decide import held_out
from curate.decide.config import SplitConfig
from curate.decide.held_out import KEY, digest, held_out_table, merged, named_in, read, write
from curate.run.schema import UserError


def table(*rows):
    """From ``key, sha256 (a digit), split`` and perhaps pixels and perceptual hash."""
    names = held_out.COLUMNS
    found = pd.DataFrame([dict(zip(names, row, strict=False)) for row in rows])
    return found.assign(sha256=[digit * 64 for digit in found["sha256"]])


def test_a_finished_curation_gives_its_held_out_pictures(finished):
    found = held_out_table(finished)
    assert found["key"].tolist() == ["k00", "k01"]  # the first has two captions
    assert set(found["split"]) == {"val"}
    assert found["phash"].tolist() == ["0" * 16, "0" * 15 + "1"]
    assert found["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert found["pixels_sha256"].tolist() == ["", ""]  # nothing was measured there


def test_pixels_are_those_that_were_measured(finished):
    rows = pd.read_parquet(finished / "ledger").drop_duplicates("key")[["key", "sha256"]].head(3)
    rows["pixels_sha256"] = [hashlib.sha256(key.encode()).hexdigest() for key in rows["key"]]
    folder = finished / "annotations"
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(rows.head(1)), folder / "part-00000.parquet")
    stale = rows.iloc[1:2].assign(sha256="f" * 64)  # of another file than the ledger's
    pq.write_table(pa.Table.from_pandas(stale), folder / "part-00001.parquet")
    found = held_out_table(finished).set_index("key")["pixels_sha256"]
    assert found.to_dict() == {"k00": hashlib.sha256(b"k00").hexdigest(), "k01": ""}


def test_a_curation_that_is_not_finished_gives_none(finished):
    (finished / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no finished curation"):
        held_out_table(finished)


def test_old_rows_stay_and_new_ones_are_added():
    old = table(("a", "1", "val"), ("b", "2", "test"))
    new = table(("b", "2", "val"), ("c", "3", "val"), ("a", "4", "test"), ("d", "3", "val"))
    found = merged(old, new)
    assert found[["key", "sha256", "split"]].to_numpy().tolist() == [
        ["a", "1" * 64, "val"],
        ["a", "4" * 64, "test"],  # the same key with another file
        ["b", "2" * 64, "test"],  # as it was first
        ["c", "3" * 64, "val"],
    ]
    assert merged(found, new).equals(found)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a folder" / "heldout_keys.parquet"
    rows = table(("b", "2", "test", "5" * 64, "6" * 16), ("a", "1", "val"))
    write(path, rows)
    first = path.read_bytes()
    found = read(path)
    assert found.fillna("").equals(merged(rows, rows))
    write(path, rows[::-1])
    assert path.read_bytes() == first
    assert named_in(SplitConfig(held_out=str(path))).equals(found)
    assert named_in(SplitConfig()) is None


def test_only_the_rows_count_for_the_digest():
    one, two = ("a", "1", "val"), ("b", "2", "test")
    assert digest(table(one, two)) == digest(table(two, one).assign(more=3))
    assert digest(table(one, two)) != digest(table(one))
    assert digest(table(one)) != digest(table(("a", "1", "test")))


def test_a_table_needs_three_columns_only(tmp_path):
    path = tmp_path / "by_hand.parquet"
    table(("a", "1", "val")).assign(note="mine").to_parquet(path)
    found = read(path)
    assert found.columns.tolist() == list(held_out.COLUMNS)
    assert found.iloc[0].tolist() == ["a", "1" * 64, "val", "", ""]


def test_a_missing_file_says_what_to_type(tmp_path):
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"{KEY}=.*: no such file .* type {KEY}="):
            read(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "heldout_keys.parquet"
    write(path, table(("a", "1", "val"), ("b", "2", "test")))
    whole = path.read_bytes()
    for content in (whole[:-9], b"key,sha256,split\n", whole[:40] + b"\0" + whole[41:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"heldout_keys\.parquet is damaged .* backup"):
            read(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.drop(columns=["split", "sha256"]), "lacks sha256, split; it has key"),
        (lambda rows: rows.assign(split="train"), "'train' in column split of row 0 is wrong"),
        (lambda rows: rows.assign(sha256="abc"), "'abc' in column sha256 of row 0"),
        (lambda rows: rows.assign(sha256=[None, "1" * 64]), "'' in column sha256"),
        (lambda rows: rows.assign(key=["a", ""]), "'' in column key"),
        (lambda rows: rows.assign(pixels_sha256="1" * 15), "in column pixels_sha256"),
        (lambda rows: rows.assign(phash="x" * 16), "in column phash"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, change, says):
    path = tmp_path / "wrong.parquet"
    change(table(("a", "1", "val"), ("b", "2", "test"))).to_parquet(path)
    with pytest.raises(UserError, match=says) as refused:
        read(path)
    assert "key, sha256 (64 hex digits of the file) and split (val or test)" in str(refused.value)
