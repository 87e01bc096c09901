"""A shard's digest changes whenever its bytes would, and only then is the shard written again."""

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from curate.pack.digest import digests
from curate.pack.plan import Plan
from curate.pack.writer import write_shard
from tests.curate.pack import oracle
from tests.curate.pack.ledgers import samples, whole


def ledger(count=12):
    """Pictures in two shards; every third has two captions."""
    rows = []
    for i in range(count):
        for c in range(1 + (i % 3 == 0)):
            row = {"key": f"k{i:02d}", "caption_index": c, "caption": f"cat {i} {c}", "kept": True}
            row |= {"clip_similarity": np.float32(0.2 + i / 100 - c / 50), "split": "train"}
            row |= {"width": 8 + i, "format": "PNG", "sha256": f"{i:064x}", "sharp": i / 7}
            row |= {"licence": "CC0" if i % 2 else None, "tags": ["a", f"{i}"], "nsfw": i % 4 == 0}
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({"width": np.int32, "sharp": np.float32})


SHARDS = [[f"k{i:02d}" for i in numbers] for numbers in ((7, 0, 3, 2), (1, 11, 9))]


@pytest.fixture
def of(tmp_path):
    """The digests of two shards."""

    def digests_of(table, shards=SHARDS, settings="png"):
        return [samples(tmp_path / "ledger", table, keys).digest(settings) for keys in shards]

    return digests_of


def test_a_digest_is_of_its_shard_alone(of):
    whole = of(ledger())
    assert len(set(whole)) == 2
    assert of(ledger()[::-1]) == whole  # whatever the order of the input
    assert of(ledger(9), SHARDS[:1]) == whole[:1]  # whatever the other rows


def test_digests_are_those_of_packing_in_memory(of):
    """Of tables without flags that all rows of a shard lack; see ``test_stage`` for those."""
    kept = oracle.Samples(whole(ledger()))
    plans = [oracle.Keyed("", "train", sorted(keys)) for keys in SHARDS]
    assert of(ledger()) == kept.digests(plans, "png")


CHANGES = {
    "caption": "another cat",
    "clip_similarity": np.float32(0.211),
    "width": 99,
    "format": "JPEG",
    "sha256": "f" * 64,
    "sharp": np.float32(0.123),
    "nsfw": False,
    "split": "val",
}


@pytest.mark.parametrize("name", [*CHANGES, "licence", "tags"])
def test_any_value_changes_the_digest_of_its_shard_alone(name, of):
    table, before = ledger(), of(ledger())
    place = table.index[table["key"] == "k00"][0]
    if name == "tags":
        table.at[place, name] = ["a", "b"]
    else:
        table.loc[table.index == place, name] = CHANGES.get(name, "")  # "" is not missing
    after = of(table)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_names_kinds_order_and_settings_change_it(of):
    table, before = ledger(), of(ledger())
    assert of(table.rename(columns={"sharp": "sharq"})) != before
    assert of(table.astype({"width": float})) != before  # 8.0 in the json, no longer 8
    assert of(table.assign(more=None)) != before
    assert of(table, settings="jpg")[0] != before[0]
    other = table.assign(key=table["key"].replace({"k07": "k00", "k00": "k07"}))
    assert of(other)[0] != before[0]
    better = table["clip_similarity"].where(table["caption_index"] == 0, np.float32(0.9))
    assert of(table.assign(clip_similarity=better))[0] != before[0]


def test_widths_of_numbers_and_kinds_of_strings_do_not_change_it(of):
    table, before = ledger(), of(ledger())
    assert of(table.astype({"width": np.int64, "sharp": np.float64})) == before
    assert of(table.astype({"caption": "category"})) == before
    assert of(table.astype({"caption": "string[pyarrow]", "sha256": object})) == before
    assert of(table.assign(caption_index=table["caption_index"] + 1)) == before  # not in a shard


def test_texts_are_told_apart_by_where_they_end():
    one, other = pa.array(["ab", "c"]), pa.array(["a", "bc"])
    assert digests([("x", one)], [0, 2], "") != digests([("x", other)], [0, 2], "")
    assert digests([("x", one.slice(1))], [0, 1], "") == digests(
        [("x", pa.array(["c"]))], [0, 1], ""
    )
    missing = [pa.array(["", None]), pa.array([None, ""])]
    assert len({digests([("x", values)], [0, 2], "")[0] for values in missing}) == 2


def test_equal_digests_mean_equal_bytes(tmp_path):
    """Oracle: the bytes of tar and table, over random changes of a small ledger."""
    rng = np.random.default_rng(0)
    bytes_of = {}
    for trial in range(30):
        table = ledger(5)
        for _ in range(rng.integers(0, 3)):
            name = rng.choice(sorted(CHANGES))
            table.loc[table.index == rng.integers(len(table)), name] = CHANGES[name]
        found = samples(tmp_path / "ledger", table[table["split"] == "train"])
        planned, digest, rows = (
            Plan("0.tar", "train", len(found)),
            found.digest("png"),
            found.rows(),
        )
        folder = tmp_path / str(trial)
        write_shard(folder, planned, rows, digest, "png", [r["sha256"].encode() for r in rows])
        files = [(folder / planned.path).with_suffix(end) for end in (".tar", ".parquet")]
        content = b"".join(file.read_bytes() for file in files)
        assert bytes_of.setdefault(digest, content) == content
    assert 5 < len(bytes_of) < 30


def test_the_definition_is_fixed():
    """A known value: shards of earlier runs are recognised only while it stays."""
    columns = [("n", pa.array([1, None], pa.int32())), ("t", pa.array(["a", "bc"]))]
    content = b"png"
    content += b'["n", "int"]' + b"\1\0" + np.array([1, 0], "<i8").tobytes()
    content += b'["t", "text"]' + b"\1\1" + np.array([1, 2], "<i8").tobytes() + b"abc"
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert digests(columns, [0, 2], "png") == [expected]
