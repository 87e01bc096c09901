"""The annotation parts of a run as one pandas frame, without the embeddings."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.annotate import embeddings
from curate.annotate.parts import reading_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.table import as_text
from curate.measures import registry
from curate.measures.phash import PIXELS_DIGITS

# Each holds on to memory. Arrow's own threads share out columns, too small a work here.
_READERS = 2


_WHOLE = {pa.int64(): pd.Int64Dtype()}


def load_annotations(parts: list[Path], request: AnnotationSpec) -> pd.DataFrame:
    """All parts as one frame in input order, without the embeddings, and with nothing but what was asked for.

    What an earlier run measured beyond ``request`` is left out, so that the verdicts do not depend on
    what was run before.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(_without_embeddings, parts))
    frame = _to_frame(_concatenated(tables))
    frame = frame.drop(columns=registry.columns_of_others(request.measures), errors="ignore")
    closed = ~request.gate.lets_through(frame) & (frame["error"] == "").to_numpy()
    if closed.any():
        frame.loc[closed, "clip_similarity"] = np.nan
        shut = pd.Series(closed).groupby(frame["key"]).transform("all").to_numpy()
        frame.loc[shut, ["pixels", "phash", "phash_mirrored"]] = ""
        frame.loc[shut, registry.image_columns(request.measures)] = np.nan
    return frame


def _without_embeddings(path: Path) -> pa.Table:
    with reading_part(path), pq.ParquetFile(path) as part:
        names = [name for name in part.schema_arrow.names if name not in embeddings.COLUMNS]
        table = part.read(names, use_threads=False)
        table.validate(full=True)  # or text that is no UTF-8 would raise wherever it is looked at
    # A million hashes of which no more is looked at than tells pictures apart.
    options = pc.SliceOptions(0, PIXELS_DIGITS)
    short = pc.call_function("utf8_slice_codeunits", [table["pixels"]], options)
    return table.set_column(names.index("pixels"), "pixels", short)


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table; a column of the source's that has several types in it becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        kinds: dict[str, set[pa.DataType]] = defaultdict(set)
        for table in tables:
            for field in table.schema:
                kinds[field.name].add(field.type)
        mixed = {name for name, types in kinds.items() if len(types - {pa.null()}) > 1}
        return pa.concat_tables(
            [_as_text(table, mixed) for table in tables], promote_options="permissive"
        )


def _to_frame(table: pa.Table) -> pd.DataFrame:
    """In pandas; whole numbers some of which are missing stay whole, for photo ids exceed a float's digits."""
    frame = table.to_pandas()
    for field in table.schema:
        if field.type == pa.int64() and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=_WHOLE.get)
    return frame


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in names:
            table = table.set_column(place, name, as_text(table[name].to_pylist()))
    return table
