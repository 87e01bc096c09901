"""Some annotation parts as a pandas frame under the layout of all parts, without the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from curate.annotate import embeddings
from curate.annotate.layout import Layout
from curate.annotate.parts import read_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.table import as_text
from curate.measures import registry
from curate.measures.phash import PIXELS_DIGITS

_WHOLE = {pa.int64(): pd.Int64Dtype()}

_IN_ARROW = "thumbnail"  # as bytes of Python's it would take twice the memory


def frame_of(parts: Sequence[Path], layout: Layout, spec: AnnotationSpec) -> pd.DataFrame:
    """Some parts in order, rows numbered from 0, with what ``spec`` asks for and no embeddings.

    What an earlier run measured beyond ``spec`` is left out: other measures, and the similarities and
    hashes of what this run's prefilter keeps out. So the verdicts do not depend on what was run before.

    Args:
        parts: at least one.
        layout: of all parts, so that each column has the type that it would have in one frame of them all.
        spec: what was measured.

    Raises:
        UserError: a part is damaged.
    """
    tables = (read_part(path, without=embeddings.COLUMNS, use_threads=False) for path in parts)
    frame = _to_frame(pa.concat_tables([_under(table, layout) for table in tables]), layout)
    frame = frame.drop(columns=registry.columns_of_others(spec.measures), errors="ignore")
    kept_out = ~spec.prefilter.passes(frame) & (frame["error"] == "").to_numpy()
    if kept_out.any():
        frame.loc[kept_out, "clip_similarity"] = np.nan
        whole_images = pd.Series(kept_out).groupby(frame["key"]).transform("all").to_numpy()
        frame.loc[whole_images, ["pixels_sha256", "phash", "phash_mirrored"]] = ""
        frame.loc[whole_images, registry.image_columns(spec.measures)] = np.nan
    return frame


def _under(table: pa.Table, layout: Layout) -> pa.Table:
    """The table with the columns and types of the layout."""
    columns = {}
    for field in layout.schema:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(len(table), field.type)
        elif field.name in layout.mixed:
            columns[field.name] = as_text(table[field.name].to_pylist())
        else:
            columns[field.name] = table[field.name].cast(field.type)
    # For a million rows, keep as many digits of the hash as tell images apart.
    options = pc.SliceOptions(0, PIXELS_DIGITS)
    pixels = columns["pixels_sha256"]
    columns["pixels_sha256"] = pc.call_function("utf8_slice_codeunits", [pixels], options)
    return pa.table(columns)


def _to_frame(table: pa.Table, layout: Layout) -> pd.DataFrame:
    """In pandas; whole numbers stay whole where some are missing: photo ids exceed a float's digits.

    Where a column lacks a value in another part, it has the type here that it has there.
    """
    frame = table.drop_columns([_IN_ARROW]).to_pandas()
    frame = frame.assign(**{_IN_ARROW: table[_IN_ARROW].to_pandas(types_mapper=pd.ArrowDtype)})
    for field in layout.schema:
        name, kind = field.name, field.type
        if pa.types.is_dictionary(kind):
            frame[name] = frame[name].cat.set_categories(list(layout.categories[name]))
        elif name not in layout.missing:
            continue
        elif kind == pa.int64():
            frame[name] = table[name].to_pandas(types_mapper=_WHOLE.get)
        elif pa.types.is_integer(kind):
            frame[name] = frame[name].astype(np.float64)
        elif pa.types.is_boolean(kind):
            frame[name] = frame[name].astype(object)
    return frame
