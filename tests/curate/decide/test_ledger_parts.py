"""Where annotation parts end, how many threads and how much memory there are shows in no byte of the ledger."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.table import source_column
from curate.decide.config import SplitConfig
from curate.filters.caption import CaptionFilterConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.run import ledger
from tests.curate.decide.growing import Data
from tests.curate.decide.judging import judged
from tests.curate.small_ledgers import all_rows

LARGE = 2**24  # float32 rounds the next whole number to it


def parts_of(folder, rows, size):
    folder.mkdir()
    parts = []
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        table = pa.Table.from_pandas(
            pd.DataFrame([{n: v for n, v in row.items() if n not in EXTRA} for row in chosen]),
            preserve_index=False,
        ).replace_schema_metadata(None)
        for name in EXTRA:
            table = table.append_column(name, source_column([row[name] for row in chosen]))
        parts.append(folder / f"part-{start:05d}.parquet")
        pq.write_table(table, parts[-1])
    return parts


EXTRA = ("votes", "said", "truth", "mixed")


@pytest.fixture
def rows():
    data = Data(0)
    for number in range(90):
        data.add(like="k0003" if number % 9 == 8 else None)
    for number, row in enumerate(data.rows):
        row["caption"] = f"caption {number % 40}"
        row["votes"] = number if number % 4 else None
        row["said"] = str(LARGE + number % 3)
        row["truth"] = True if number % 5 else None
        row["mixed"] = number if number < 70 else "x"
    return data.rows


@pytest.mark.parametrize("is_whole", [True, False])
def test_no_cut_of_the_input_shows(rows, tmp_path, monkeypatch, is_whole):
    """``said`` is text: all whole numbers, compared exactly, or not, in a single part of which one is a fraction."""
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 32)
    if not is_whole:
        rows[80]["said"] = f"{LARGE}.5"
    filters = FiltersConfig(
        caption=CaptionFilterConfig(max_occurrences=2),
        clip_similarity=ClipSimilarityConfig(fraction=0.9),
        columns={"said": ColumnConfig(maximum=LARGE)},
    )
    sides = SplitConfig(val=0.1, test=0.1, minimum=5)
    found = []
    for size, threads, memory in ((90, 2, 500_000_000), (7, 1, 100_000_000), (1, 2, 500_000_000)):
        parts = parts_of(tmp_path / f"{size}", rows, size)
        found.append(judged(parts, filters, sides, threads=threads, memory=memory))
    first = found[0]
    assert len(first.files) == 3
    for other in found[1:]:
        assert other.files == first.files
        assert (other.steps, other.cut, other.auc) == (first.steps, first.cut, first.auc)
    dropped = int((all_rows(first.ledger)["rule"] == "said").sum())
    assert dropped == (60 if is_whole else 29)
    assert all_rows(first.ledger)["mixed"].tolist()[69:71] == ["69", "x"]
    assert all_rows(first.ledger)["votes"].dtype == "Int64"


def test_numbers_of_rows_and_verdicts_must_agree(rows, tmp_path, monkeypatch):
    from curate.decide import ledger_parts

    parts = parts_of(tmp_path / "parts", rows, 90)
    original = ledger_parts.write_verdicts
    monkeypatch.setattr(
        ledger_parts, "write_verdicts", lambda c, q, n, f: original(c, f"{q} LIMIT 5", n, f)
    )
    with pytest.raises(RuntimeError, match="there are 5 verdicts or more for 90 pairs"):
        judged(parts, FiltersConfig(), SplitConfig())
