"""The ledger's files: one schema, so that any reader takes the folder whole."""

import pandas as pd
import pyarrow.parquet as pq

from curate.run import ledger
from tests.curate import small_ledgers


def rows(count):
    texts = dict.fromkeys(ledger.COLUMNS, "")
    table = pd.DataFrame({**texts, "key": [f"k{i}" for i in range(count)]})
    licence = pd.Series([None] * (count - 1) + ["CC0"], dtype=object)
    return table.assign(kept=True, licence=licence)


def test_plain_pandas_reads_all_parts_where_a_column_is_empty_in_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 3)
    table = rows(7)
    small_ledgers.write(tmp_path / "ledger", table)
    parts = ledger.parts(tmp_path)
    assert len(parts) == 3
    assert len({str(pq.read_schema(part).remove_metadata()) for part in parts}) == 1
    read = pd.read_parquet(tmp_path / "ledger")
    assert read["key"].tolist() == table["key"].tolist()
    assert read["licence"].dropna().tolist() == ["CC0"]
