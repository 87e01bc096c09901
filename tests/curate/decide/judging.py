"""Judges small frames as the stage does: narrow tables of them, then the rules, in a database of their own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.annotate.spec import AnnotationSpec
from curate.decide import narrow, split, stage
from curate.decide.config import SplitConfig
from curate.decide.frozen import HeldOutAgain
from curate.decide.judgement import Judgement
from curate.decide.leaks import Leaks
from curate.decide.shuffled_captions import Null
from curate.filters.config import FiltersConfig
from curate.filters.prefilter import Prefilter
from curate.run.database import Limits, connect, registered
from curate.run.engine.inprocess import InProcess
from curate.run.ledger_table import LedgerTable
from curate.run.removals import Removals
from tests.curate.small_ledgers import table_of


@dataclass
class Outcome:
    """As ``stage.Verdicts``, with a ledger that outlives the working files, and the bytes of its parts."""

    ledger: LedgerTable
    steps: list[tuple[str, int]]
    cut: float | None
    cut_by: str
    null: Null
    leaks: Leaks
    loosened: int
    held_out_again: HeldOutAgain | None
    auc: float | None
    files: list[bytes]

    def separation(self) -> float | None:
        return self.auc


def judged(
    parts: list[Path],
    filters: FiltersConfig,
    sides: SplitConfig,
    held_out: pd.DataFrame | None = None,
    *,
    spec: AnnotationSpec | None = None,
    heads: dict | None = None,
    removals: Removals | None = None,
    memory: int = 500_000_000,
    threads: int = 2,
) -> Outcome:
    """The verdicts on the pairs of some parts."""
    asked = spec or AnnotationSpec("planted 0", Prefilter(filters.image, filters.caption))
    names = ("steps", "cut", "cut_by", "null", "leaks", "loosened", "held_out_again")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = Limits(folder / "scratch", memory, threads)
        with stage.judge(
            parts,
            asked,
            heads or {},
            filters,
            sides,
            removals or Removals(),
            held_out,
            engine=InProcess(),
            folder=folder,
            limits=limits,
        ) as found:
            auc = found.separation()
        written = sorted((folder / "ledger").glob("part-*.parquet"))
        ledger = pd.concat([pd.read_parquet(path) for path in written], ignore_index=True)
        return Outcome(
            ledger=table_of(ledger.drop(columns="shard")),
            auc=auc,
            files=[path.read_bytes() for path in written],
            **{name: getattr(found, name) for name in names},
        )


@contextmanager
def database(threads: int = 2, memory: int = 500_000_000, **tables: pa.Table) -> Iterator:
    """A connection that holds some tables."""
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(Limits(Path(folder), memory, threads)) as connection,
    ):
        for name, table in tables.items():
            with registered(connection, "given_table", table):
                connection.sql(f"CREATE TABLE {name} AS SELECT * FROM given_table")
        yield connection


_BARE = {
    **dict.fromkeys(("source", "location", "version", "format", "error", "sha256"), ""),
    **dict.fromkeys(("clip_model", "pixels_sha256", "phash", "phash_mirrored"), ""),
    "has_caption": True,
    "caption": "a cat",
    "thumbnail": None,
    "width": 9,
    "height": 9,
    "clip_similarity": np.nan,
}


def in_order(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows with all columns, the captions of an image after each other, each by its old index in ``at``."""
    bare = {name: value for name, value in _BARE.items() if name not in pairs}
    rows = pairs.assign(**bare, at=pairs.index)
    # Images as they come, not by their keys, which decide between ties.
    order = np.lexsort((rows["caption_index"], pd.factorize(rows["key"])[0]))
    return rows.iloc[order].reset_index(drop=True)


def judgement_of(
    connection, config: FiltersConfig, pairs: pd.DataFrame, cut: float | None = None
) -> tuple[Judgement, narrow.Seen]:
    """Judge rows of ``in_order`` by all rules but that on duplicates."""
    rules, seen = narrow.rules_in_order(config, Removals()), narrow.Seen()
    for name, table in narrow.narrow(pairs, 0, rules, seen).items():
        with registered(connection, "given_table", table):
            connection.sql(f"CREATE TABLE {name} AS SELECT * FROM given_table")
    judgement = Judgement(connection, rules)
    judgement.judge(config, cut)
    return judgement, seen


def reasons(
    config: FiltersConfig, pairs: pd.DataFrame, cut: float | None = None, threads: int = 2
) -> list[str]:
    """What the ledger would say of each pair, but for duplicates."""
    if pairs.empty:
        return []
    rows = in_order(pairs)
    with database(threads) as connection:
        judgement, _ = judgement_of(connection, config, rows, cut)
        codes = connection.sql("SELECT code FROM judged ORDER BY row").fetchall()
    found = [judgement.reasons[code].reason for (code,) in codes]
    return pd.Series(found, rows["at"].to_numpy(), dtype="str").loc[pairs.index].tolist()


def assign(
    groups: pd.Series, config: SplitConfig, frozen: pd.Series | None = None, threads: int = 2
) -> pd.Series:
    """The side of each image, given its group of 16 hex digits, and the side that this is frozen on."""
    rows = pd.DataFrame({"group": groups, "stays": "" if frozen is None else frozen.to_numpy(str)})
    counted = rows.groupby("group").agg(images=("stays", "size"), stays=("stays", "first"))
    table = {
        "name": pa.array([int(name, 16) for name in counted.index], pa.uint64()),
        "images": pa.array(counted["images"].to_numpy(), pa.int64()),
        "stays": pa.array(counted["stays"].tolist(), pa.string()),
    }
    with database(threads, kept_groups=pa.table(table)) as connection:
        split.assign(connection, config)
        sides = dict(connection.sql("SELECT name, side FROM group_sides").fetchall())
    assert len(sides) == len(counted)
    found = [sides[int(name, 16)] for name in groups]
    return pd.Series(found, groups.index, dtype="str")
