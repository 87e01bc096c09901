"""Whether a part holds all that a run asks for, and the footer that says what it holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.annotate.parts import FORMAT, METADATA, part_head, read_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stored_embeddings import HEAD, stored_in
from curate.measures.unreadable import CANNOT_BE_READ
from curate.run.companions import ERROR

# The rows of pairs that would have been scored, had they passed the prefilter, and what decides it.
_KEPT_OUT = (
    pc.field("has_caption")
    & (pc.field("caption") != "")
    & (pc.field("error") == "")
    & pc.field("clip_similarity").is_null()
)
_PREFILTERED = ["has_caption", "caption", "width", "height", "bytes", "error", "clip_similarity"]


def is_done(path: Path, spec: AnnotationSpec) -> bool:
    """Whether a part is measured as ``spec`` asks, and holds no image that another try may read."""
    return is_measured(path, spec) and not part_head(path).get("to_retry")


def is_measured(path: Path, spec: AnnotationSpec) -> bool:
    """Whether a part holds all that ``spec`` asks for; images that cannot be read were tried at least once."""
    head = part_head(path)
    if not head or not spec.measures.items() <= head["measures"].items():
        return False
    if not stored_in(head).holds(spec.stored):
        return False
    if head["prefilter"] in (None, spec.prefilter.digest):
        return True
    try:
        kept_out = read_part(path, _PREFILTERED).filter(_KEPT_OUT).to_pandas()
    except FileNotFoundError:  # another process has just deleted it
        return False
    return not spec.prefilter.passes(kept_out).any()


def with_head(part: pa.Table, spec: AnnotationSpec) -> pa.Table:
    """The part with what ``part_head`` reads."""
    errors = _counted(part["error"])
    if ERROR in part.column_names:
        errors += _counted(part[ERROR].drop_null())
    head = {
        "format": FORMAT,
        "clip_model": spec.clip_model,
        "measures": spec.measures,
        "to_retry": sum(n for error, n in errors.items() if CANNOT_BE_READ in error),
        "prefilter": spec.prefilter.digest if part.filter(_KEPT_OUT).num_rows else None,
        HEAD: spec.stored.head(),
    }
    return part.replace_schema_metadata({METADATA: json.dumps(head)})


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs."""
    counts = column.value_counts().to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counts})
