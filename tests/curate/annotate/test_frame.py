"""Parts read under one layout are the rows of one frame of them all, types included."""

import random

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.frame import frame_of
from curate.annotate.layout import Layout
from curate.annotate.spec import AnnotationSpec
from curate.annotate.table import source_column
from curate.filters.caption import CaptionFilterConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.prefilter import Prefilter
from tests.curate.annotate.whole_frame import load_annotations

SPEC = AnnotationSpec("x", Prefilter(ImageFilterConfig(min_side_px=20), CaptionFilterConfig()))
BIG = 2**53
VALUES = {
    "whole": [1, 2, BIG + 1],
    "whole_or_none": [1, None, BIG + 1],
    "whole_or_not": [1, 2.5, 3],
    "too_large_for_a_float": [1, 2.5, BIG + 1],
    "truth": [True, False, None],
    "text": ["a", "", None],
    "mixed": ["x", 1, 2.0, True, None],
    "nothing": [None],
    "a.dot": [1, None],
}


def write_parts(folder, rows, ends):
    folder.mkdir()
    parts = []
    for start, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        chosen = rows[start:end]
        columns = {name: source_column([row.get(name) for row in chosen]) for name in rows[0]}
        for name in ("pixels_sha256", "phash", "phash_mirrored", "error", "key"):
            columns[name] = columns[name].cast(pa.string())
        columns["thumbnail"] = pa.array([row["thumbnail"] for row in chosen], pa.binary())
        columns["clip_similarity"] = columns["clip_similarity"].cast(pa.float32())
        columns["width"] = columns["width"].cast(pa.int32())
        columns["clip_model"] = pa.array(["x 0"] * len(chosen)).dictionary_encode()
        absent = [name for name in VALUES if start % 2 and columns[name].null_count == len(chosen)]
        parts.append(folder / f"part-{start}.parquet")
        pq.write_table(pa.table(columns).drop_columns(absent), parts[-1])
    return parts


def rows_of(draw, count):
    rows = []
    for number in range(count):
        row = {"key": f"k{number}", "caption_index": 0, "has_caption": True, "caption": "a cat"}
        row |= {"width": draw.choice([10, 30]), "height": 30, "bytes": 9, "error": ""}
        row |= {"pixels_sha256": f"{number:064x}", "phash": f"{number:016x}", "thumbnail": b"t"}
        row |= {"phash_mirrored": f"{number:016x}", "clip_similarity": 0.5}
        rows.append(row | {name: draw.choice(values) for name, values in VALUES.items()})
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_as_one_frame_of_all_parts(tmp_path, seed):
    draw = random.Random(seed)
    count = draw.choice([1, 7, 40])
    rows = rows_of(draw, count)
    ends = sorted(draw.sample(range(1, count), min(count - 1, draw.choice([0, 1, 5]))))
    parts = write_parts(tmp_path / "parts", rows, ends)
    expected = load_annotations(parts, SPEC)
    layout = Layout.of(parts)
    assert sum(layout.rows) == count
    each = [frame_of([path], layout, SPEC) for path in parts]
    columns = sorted(expected.columns)
    for frame in each:
        assert frame[columns].dtypes.to_dict() == expected[columns].dtypes.to_dict()
    found = pd.concat(each, ignore_index=True)
    pd.testing.assert_frame_equal(found[columns], expected[columns], check_exact=True)
    together = frame_of(parts, layout, SPEC)
    pd.testing.assert_frame_equal(together[columns], expected[columns], check_exact=True)
    kept_out = [row["width"] < 20 for row in rows]
    assert together["clip_similarity"].isna().tolist() == kept_out
