"""All annotation parts as one pandas frame: the reading of earlier releases, against which parts are tested."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from curate.annotate import embeddings
from curate.annotate.parts import read_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.table import as_text
from curate.measures import registry
from curate.measures.phash import PIXELS_DIGITS

# Each holds on to memory. Arrow's own threads would share out columns, which are too small for that.
_READERS = 2

_WHOLE = {pa.int64(): pd.Int64Dtype()}

_IN_ARROW = "thumbnail"  # as bytes of Python's it would take twice the memory


def load_annotations(parts: list[Path], spec: AnnotationSpec) -> pd.DataFrame:
    """All parts as one frame in input order, with what ``spec`` asks for and no embeddings.

    What an earlier run measured beyond ``spec`` is left out: other measures, and the similarities and
    hashes of what this run's prefilter keeps out. So the verdicts do not depend on what was run before.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(_without_embeddings, parts))
    frame = _to_frame(_concatenated(tables))
    frame = frame.drop(columns=registry.columns_of_others(spec.measures), errors="ignore")
    kept_out = ~spec.prefilter.passes(frame) & (frame["error"] == "").to_numpy()
    if kept_out.any():
        frame.loc[kept_out, "clip_similarity"] = np.nan
        whole_images = pd.Series(kept_out).groupby(frame["key"]).transform("all").to_numpy()
        frame.loc[whole_images, ["pixels_sha256", "phash", "phash_mirrored"]] = ""
        frame.loc[whole_images, registry.image_columns(spec.measures)] = np.nan
    return frame


def _without_embeddings(path: Path) -> pa.Table:
    table = read_part(path, without=embeddings.COLUMNS, use_threads=False)
    # For a million rows, keep as many digits of the hash as tell images apart.
    options = pc.SliceOptions(0, PIXELS_DIGITS)
    short = pc.call_function("utf8_slice_codeunits", [table["pixels_sha256"]], options)
    return table.set_column(table.column_names.index("pixels_sha256"), "pixels_sha256", short)


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table; a column of the source's with several types becomes text."""
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
    """In pandas; whole numbers stay whole where some are missing: photo ids exceed a float's digits."""
    bare = table.drop_columns([_IN_ARROW])
    frame = bare.to_pandas().assign(
        **{_IN_ARROW: table[_IN_ARROW].to_pandas(types_mapper=pd.ArrowDtype)}
    )
    for field in table.schema:
        if field.type == pa.int64() and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=_WHOLE.get)
    return frame


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in names:
            table = table.set_column(place, name, as_text(table[name].to_pylist()))
    return table
