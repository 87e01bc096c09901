"""Verdicts, funnel and ledger on planted data whose answer is known."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.frame import frame_of
from curate.annotate.layout import Layout
from curate.annotate.spec import AnnotationSpec
from curate.annotate.table import source_column
from curate.decide.config import SplitConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.prefilter import Prefilter
from curate.filters.similarity import ClipSimilarityConfig
from curate.report import figures as funnel
from curate.run import ledger
from curate.run.ledger_table import check_complete
from tests.curate import small_ledgers
from tests.curate.decide.judging import judged
from tests.curate.pack.ledgers import samples
from tests.curate.small_ledgers import all_rows, table_of

PAIRS, WRONG, DIMENSIONS = 600, 120, 48


@pytest.fixture
def annotations():
    """Captions that lie near their images, a fifth of them dealt to other images; one row broken."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(PAIRS, DIMENSIONS))
    texts = images + 0.8 * rng.normal(size=images.shape)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    dealt = np.concatenate([np.roll(np.arange(WRONG), 1), np.arange(WRONG, PAIRS)])
    texts = texts[dealt]
    table = pd.DataFrame(
        {
            "key": [f"k{i:04d}" for i in range(PAIRS)],
            "caption_index": 0,
            "has_caption": True,
            "source": "planted",
            "caption": [f"caption {i}" for i in dealt],
            "location": "here",
            "version": "1",
            "width": 64,
            "height": 64,
            "format": "PNG",
            "bytes": 100,
            "sha256": [f"{i:064x}" for i in range(PAIRS)],
            "pixels_sha256": [f"{i:016x}" for i in range(PAIRS)],
            "phash": [f"{rng.integers(2**63):016x}" for _ in range(PAIRS)],
            "phash_mirrored": [f"{rng.integers(2**63):016x}" for _ in range(PAIRS)],
            "thumbnail": [bytes(range(96))] * PAIRS,
            "error": "",
            "clip_similarity": (images * texts).sum(axis=1).astype(np.float32),
            "clip_model": "planted 0",
            "image_embedding": [row.tobytes() for row in images.astype(np.float32)],
            "text_embedding": [row.tobytes() for row in texts.astype(np.float32)],
            "planted_mismatch": dealt != np.arange(PAIRS),
            "true_caption": [f"caption {i}" for i in range(PAIRS)],
        }
    )
    broken = {"error": "truncated", "clip_similarity": np.nan, "pixels_sha256": ""}
    broken |= {"image_embedding": None, "text_embedding": None}
    for name, value in broken.items():
        table.loc[PAIRS - 1, name] = value
    return table


def decide(annotations, filters, sides):
    """What the pipeline does: the annotations as a part, its ledger as a frame."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part-00000.parquet")
        annotations.to_parquet(part)
        return judged([part], filters, sides)


def filters(**similarity):
    return FiltersConfig(clip_similarity=ClipSimilarityConfig(**similarity))


def test_calibrated_cut_removes_the_planted_and_keeps_the_true(annotations):
    verdicts = decide(annotations, filters(false_keep_rate=0.05), SplitConfig(minimum=0))
    found = funnel.summarise(verdicts, [])["planted"]
    assert found["mismatches"] == WRONG
    assert found["recall"] == pytest.approx(0.95, abs=0.06)
    assert found["true_keep_rate"] > 0.99
    assert found["precision"] > 0.95


def test_funnel_and_ledger_agree(annotations):
    verdicts = decide(annotations, filters(minimum=0.3), SplitConfig())
    table, figures = all_rows(verdicts.ledger), funnel.summarise(verdicts, ["a note"])
    expected = annotations["clip_similarity"] >= np.float32(0.3)
    assert table["kept"].tolist() == expected.tolist()
    assert figures["kept"] == expected.sum()
    assert figures["unreadable"] == 1
    assert (
        figures["kept"] + figures["dropped"] + figures["unreadable"] == figures["pairs_in"] == PAIRS
    )
    assert figures["rules"][-1]["left"] == figures["kept"]
    assert sum(rule["dropped"] for rule in figures["rules"]) == PAIRS - figures["kept"]
    assert figures["reasons"]["clip_similarity < 0.3"] == figures["dropped"]
    assert sum(figures["samples"].values()) == figures["kept"]
    assert table.loc[PAIRS - 1, ["status", "reason", "split"]].tolist() == [
        "unreadable",
        "unreadable: truncated",
        "",
    ]
    assert (table["split"] != "").tolist() == table["kept"].tolist()
    assert any("a note" in line for line in funnel.lines(figures))


def test_a_cut_says_what_it_means_for_this_model(annotations):
    strict = funnel.summarise(decide(annotations, filters(minimum=0.9), SplitConfig()), [])
    loose = funnel.summarise(decide(annotations, filters(minimum=-1.0), SplitConfig()), [])
    assert strict["cut"]["false_keep_rate"] == 0
    assert loose["cut"]["false_keep_rate"] == 1


def test_without_a_cut_everything_readable_stays(annotations):
    verdicts = decide(annotations, filters(), SplitConfig())
    assert verdicts.cut is None
    assert all_rows(verdicts.ledger)["kept"].sum() == PAIRS - 1


def test_an_image_stays_for_its_best_caption_and_on_one_side(annotations):
    readable = annotations[annotations["error"] == ""]
    two = pd.concat([readable, readable.assign(caption_index=1, caption="other")])
    two = two.sort_values(["key", "caption_index"])  # as parts hold them
    two.loc[two["caption_index"] == 1, "clip_similarity"] = np.float32(0.01)
    table = all_rows(decide(two.reset_index(drop=True), filters(minimum=0.3), SplitConfig()).ledger)
    assert set(table.loc[table["kept"], "caption_index"]) == {0}
    both = all_rows(decide(two.reset_index(drop=True), filters(), SplitConfig()).ledger)
    assert both[both["kept"]].groupby("key")["split"].nunique().max() == 1


def test_duplicates_are_on_one_side_when_they_are_kept(annotations):
    annotations["pixels_sha256"] = [f"{i // 2:016x}" for i in range(PAIRS)]
    config = filters()
    config.duplicates.exact = False
    table = all_rows(decide(annotations, config, SplitConfig(val=0.3, test=0.3)).ledger)
    kept = table[table["kept"]]
    assert kept.groupby("duplicate_group")["split"].nunique().max() == 1
    assert (kept.groupby("duplicate_group").size() > 1).any()


def test_the_ledger_refuses_to_lose_a_pair(annotations, tmp_path):
    table = all_rows(decide(annotations, filters(minimum=0.3), SplitConfig()).ledger).assign(
        shard=""
    )
    check_complete(table_of(table), PAIRS)
    small_ledgers.write(tmp_path / "ledger", table)
    read = ledger.read(tmp_path)
    assert read["key"].tolist() == annotations["key"].tolist()
    assert tuple(read.columns[: len(ledger.COLUMNS)]) == ledger.COLUMNS
    for change in ({"status": ""}, {"reason": "no reason"}, {"kept": False}):
        wrong = table.copy()
        row = wrong.index[wrong["kept"]][0]
        for name, value in change.items():
            wrong.loc[row, name] = value
        with pytest.raises(RuntimeError):
            check_complete(table_of(wrong), PAIRS)
    with pytest.raises(RuntimeError, match=f"{PAIRS - 1} pairs"):
        check_complete(table_of(table.iloc[1:]), PAIRS)


def test_a_ledger_in_parts(annotations, tmp_path, monkeypatch):
    table = all_rows(decide(annotations, filters(), SplitConfig()).ledger).assign(shard="")
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 250)
    small_ledgers.write(tmp_path / "ledger", table)
    assert len(list((tmp_path / "ledger").iterdir())) == 3
    assert len(ledger.read(tmp_path)) == PAIRS
    monkeypatch.setattr(ledger, "ROWS_PER_PART", 1_000)
    small_ledgers.write(tmp_path / "ledger", table)
    assert len(ledger.read(tmp_path)) == PAIRS
    with pytest.raises(FileNotFoundError, match=r"python -m curate run\.name="):
        ledger.read(tmp_path / "none")


BIG = 2**53 + 1  # the first whole number that a float cannot hold


def test_whole_numbers_of_the_source_stay_whole_where_some_are_missing(annotations, tmp_path):
    numbers = pd.array([BIG + i if i % 3 else None for i in range(PAIRS)], "Int64")
    found = decide(annotations.assign(photo_id=numbers), filters(fraction=1.0), SplitConfig())
    assert list(all_rows(found.ledger)["photo_id"]) == list(numbers)
    small_ledgers.write(tmp_path / "curate" / "ledger", all_rows(found.ledger).assign(shard=""))
    assert ledger.read(tmp_path / "curate")["photo_id"].tolist() == numbers.tolist()
    keys = [f"k{number:04d}" for number in range(9)]
    for row in samples(tmp_path / "staged", all_rows(found.ledger), keys).rows():
        number = int(row["key"][1:])
        assert row["photo_id"] == (BIG + number if number % 3 else None)


def test_a_column_of_several_types_reads_alike_wherever_the_parts_end(annotations, tmp_path):
    values = [True, "x", 1e-7, 3.0, None, False, 1, 2.5]  # Arrow makes floats of the last two
    read = []
    for ends in ([2, 4, 6, 8], [1, 3, 7, 8], [8]):
        parts = []
        for start, end in zip([0, *ends], ends, strict=False):
            part = tmp_path / f"part-{start}-{end}.parquet"
            table = pa.Table.from_pandas(annotations[start:end], preserve_index=False)
            pq.write_table(table.append_column("extra", source_column(values[start:end])), part)
            parts.append(part)
        request = AnnotationSpec(
            "planted 0", Prefilter(FiltersConfig().image, FiltersConfig().caption)
        )
        frame = frame_of(parts, Layout.of(parts), request)
        read.append(frame["extra"].fillna("missing").tolist())
    assert read[0] == ["True", "x", "1e-07", "3", "missing", "False", "1", "2.5"]
    assert read[1] == read[2] == read[0]


def test_bounds_on_whole_numbers_some_of_which_are_missing(annotations):
    numbers = pd.array([i if i % 3 else None for i in range(PAIRS)], "Int64")
    rules = filters(fraction=1.0)
    rules.columns = {"votes": ColumnConfig(minimum=100, keep_missing=True)}
    found = decide(annotations.assign(votes=numbers), rules, SplitConfig())
    kept = all_rows(found.ledger).query("kept")
    expected = [i for i in range(PAIRS - 1) if not i % 3 or i >= 100]
    assert kept["key"].tolist() == [f"k{i:04d}" for i in expected]
