"""A ledger in SQL: rows in input order, whatever its columns are called and however it is cut."""

import gc
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from curate.decide.similarities import Similarities
from curate.run import ledger, ledger_table
from curate.run.database import Limits
from curate.run.ledger_table import check_complete
from curate.run.schema import UserError
from tests.curate import small_ledgers
from tests.curate.small_ledgers import all_rows, table_of

# As a source may call its columns; DuckDB takes some for others, or for its own.
HOSTILE = [
    *("Key", "KEY", "ROW", "row", "image", "Image", "column_0", "COLUMN_1", "file_row_number", "file_index", "filename"),
    *("", " ", 'a"b', "it's", "select", "x;--", "größe", "GRÖSSE", "Größe", "a\nb", "rule ", "Kept"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_rows_per_part(monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 7)


def table(pairs: int = 40, extra=HOSTILE) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    index = np.arange(pairs, dtype=np.int32) % 3
    frame = pd.DataFrame(dict.fromkeys(ledger.COLUMNS, ""), index=range(pairs))
    frame = frame.assign(
        key=[f"k{row // 3}" for row in range(pairs)],
        caption_index=index,
        caption=[f"caption {row}" for row in range(pairs)],
        kept=rng.random(pairs) < 0.5,
        clip_similarity=rng.random(pairs).astype(np.float32),
    )
    frame.loc[::5, "clip_similarity"] = np.nan
    values = {name: [f"{name} of {row}" for row in range(pairs)] for name in extra}
    return pd.concat([frame, pd.DataFrame(values)], axis=1)


@pytest.fixture
def opened(tmp_path):
    small_ledgers.write(tmp_path / "curate" / "ledger", table())
    parts = ledger.parts(tmp_path / "curate")
    assert len(parts) == 6
    with ledger_table.ledger_table(parts, Limits(tmp_path / "scratch", threads=2)) as found:
        yield found


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_a_column_is_found_and_given_back(opened, name):
    query = f"SELECT row, {opened.column(name)} FROM ledger WHERE {opened.column(name)} = ?"
    found = opened.frame(query, f"{name} of 23")
    assert list(found.columns) == ["row", name]
    assert found.iloc[:, 0].tolist() == [23]
    assert opened.tuples(f"SELECT {opened.column(name)} FROM ledger WHERE row = 38") == [
        (f"{name} of 38",)
    ]


def test_our_own_columns_have_their_names(opened):
    expected = table()
    found = opened.frame("SELECT key, kept, row, image FROM ledger ORDER BY row")
    assert found["key"].tolist() == expected["key"].tolist()
    assert found["kept"].tolist() == expected["kept"].tolist()
    assert found["row"].tolist() == list(range(40))
    assert found["image"].tolist() == [row // 3 * 3 for row in range(40)]
    assert opened.pairs == opened.count() == 40
    assert opened.images() == 14
    assert opened.images("kept") == expected.loc[expected["kept"], "key"].nunique()
    assert opened.count("kept AND caption_index = ?", 2) == sum(
        expected["kept"] & (expected["caption_index"] == 2)
    )


def test_some_rows_are_those_of_the_frame_in_any_order(opened):
    wanted = [39, 0, 6, 7, 20]
    expected = table().loc[wanted, list(opened.columns)]
    pd.testing.assert_frame_equal(opened.rows(wanted), expected, check_dtype=False)
    assert opened.rows([]).empty
    assert opened.rows([3])["row"].tolist() == ["row of 3"]


def test_a_frame_is_a_ledger_and_its_files_go_with_it():
    found = table_of(table(extra=["Key"]).drop(columns=["shard", "caption_index"]))
    folder = found.parts[0].parent
    assert "shard" not in found
    assert found.images() == 40
    assert found.is_text("Key")
    assert found.type_of("clip_similarity") == "FLOAT"
    with pytest.raises(KeyError):
        found.column("shard")
    assert table_of(table(0)).pairs == 0
    del found
    gc.collect()
    assert not folder.exists()


def test_parts_of_an_earlier_version_may_have_other_columns(tmp_path):
    """As they were written before parts had one schema: a column may be empty, absent or of numbers."""
    frame = table(20, extra=["votes"])
    small_ledgers.write(tmp_path / "curate" / "ledger", frame.assign(votes=range(20)))
    parts = ledger.parts(tmp_path / "curate")
    frame[:7].drop(columns=["votes", "rule"]).to_parquet(parts[0])
    frame[7:14].assign(votes=None).to_parquet(parts[1])
    with ledger_table.ledger_table(parts, Limits(tmp_path / "scratch")) as found:
        votes, query = found.column("votes"), "SELECT row FROM ledger WHERE {} ORDER BY row"
        assert found.count(f"{votes} IS NULL") == 14
        rows = found.frame(query.format(f"{votes} IS NOT NULL"))["row"]
        assert rows.tolist() == list(range(14, 20))
        assert found.count("rule IS NULL") == 7
        assert found.rows([18, 2])["key"].tolist() == ["k6", "k0"]


def test_whole_numbers_stay_whole_where_some_are_missing():
    ids = pd.array([2**60 + 1, None, 3], "Int64")
    found = all_rows(table_of(pd.DataFrame({"key": ["a", "b", "c"], "id": ids})))
    assert found["id"].tolist() == ids.tolist()


def test_two_ledgers_lie_beside_each_other(opened, tmp_path):
    small_ledgers.write(tmp_path / "other" / "ledger", table(9))
    other = opened.beside("before", ledger.parts(tmp_path / "other"))
    query = f"SELECT count(*) FROM ledger JOIN before USING (key, caption_index) WHERE ledger.{opened.column('Key')} = before.{other.column('Key')}"
    assert opened.value(query) == other.pairs == 9


def test_batches_give_every_row_once(opened):
    query = f"SELECT row AS number, {opened.column('row')} FROM ledger ORDER BY ALL"
    batches = list(opened.batches(query, rows=10))
    assert sum(map(len, batches)) == 40
    assert batches[0].schema.names == ["number", "row"]


def test_a_damaged_part_is_named(tmp_path):
    small_ledgers.write(tmp_path / "curate" / "ledger", table())
    parts = ledger.parts(tmp_path / "curate")
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 2] ^= 1
    parts[2].write_bytes(content)
    with (
        pytest.raises(UserError, match=r"part-00002\.parquet is damaged"),
        ledger_table.ledger_table(parts, Limits(tmp_path / "scratch")),
    ):
        pass


def test_damage_that_leaves_the_footer_readable_is_refused(opened, tmp_path, monkeypatch):
    small_ledgers.write(tmp_path / "other" / "ledger", table())
    parts = ledger.parts(tmp_path / "other")
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 3] ^= 1
    parts[2].write_bytes(content)
    monkeypatch.setattr(ledger, "schema", pq.read_schema)  # checks nothing
    with pytest.raises(
        UserError, match=r"part-00002\.parquet is damaged \(its checksum is another\)"
    ):
        opened.beside("before", parts)
    with (
        pytest.raises(
            UserError, match=r"part-00002\.parquet is damaged \(its checksum is another\)"
        ),
        ledger_table.ledger_table(parts, Limits(tmp_path / "scratch")),
    ):
        pass


def test_a_ledger_beside_another_is_checked_itself(opened, tmp_path):
    frame = table(9, extra=[]).assign(kept=True, status="kept")
    frame.loc[7, "status"] = "dropped"
    small_ledgers.write(tmp_path / "other" / "ledger", frame)
    other = opened.beside("before", ledger.parts(tmp_path / "other"))
    with pytest.raises(RuntimeError, match=re.escape("disagree for 1 pairs: ['k2']")):
        check_complete(other, 9)
    own = frame["clip_similarity"].dropna()
    assert Similarities.of(other).values.tolist() == sorted({*own})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"status": ""}, "disagree for 1 pairs: ['k1']"),
        ({"status": None}, "disagree for 1 pairs: ['k1']"),
        ({"reason": "no reason"}, "disagree for 1 pairs: ['k1']"),
        ({"reason": None}, "disagree for 1 pairs: ['k1']"),
        ({"kept": False}, "disagree for 1 pairs: ['k1']"),
        ({"rule": "aspect"}, "disagree for 1 pairs: ['k1']"),
        ({"rule": None}, ""),  # of an earlier version
    ],
)
def test_verdicts_that_contradict_themselves_are_found(change, says):
    frame = table(12, extra=[]).assign(kept=True, status="kept")
    frame.loc[6:, ["kept", "status", "rule", "reason"]] = [False, "dropped", "aspect", "aspect > 3"]
    for name, value in change.items():
        frame.loc[3, name] = value
    found = table_of(frame)
    if not says:
        check_complete(found, 12)
        check_complete(table_of(frame.drop(columns="rule")), 12)
        return
    with pytest.raises(RuntimeError, match=re.escape(says)):
        check_complete(found, 12)


def test_the_first_pairs_that_contradict_themselves_are_named():
    frame = table(40, extra=[]).assign(kept=True, status="dropped")
    said = r"disagree for 40 pairs: \['k0', 'k0', 'k0'\]"
    with pytest.raises(RuntimeError, match=said):
        check_complete(table_of(frame), 40)
    with pytest.raises(RuntimeError, match="holds 40 pairs and the input 41"):
        check_complete(table_of(frame), 41)
