"""A part's table: rows of pairs out of candidates, image records and text embeddings."""

import numpy as np
import pytest

from curate.annotate.cache import ImageRecord
from curate.annotate.stored_embeddings import Stored
from curate.annotate.table import COLUMNS, part_table, source_column
from curate.readers.candidate import Candidate

X, Y = np.eye(2, dtype=np.float16)


def test_an_image_has_a_row_for_each_caption_and_one_without_any():
    candidates = [
        Candidate(
            "a", ("one", "two", "unscored"), "s", "a.png", "1", {"url": "u", "key": "not this"}
        ),
        Candidate("b", (), "s", "b.png", "2", {"votes": 3}),
        Candidate("c", ("one",), "s", "c.png", "3"),
    ]
    records = [
        ImageRecord("0a", 7, 4, 3, "PNG", "1a", "2a", "3a", values={"sharpness": 0.5}, embedding=X),
        ImageRecord("0b", 8, 4, 3, "PNG", "1b", "2b", "3b", embedding=Y),
        ImageRecord(error="missing file"),
    ]
    texts = {"one": X, "two": np.float16([0.6, 0.8])}
    table = part_table(
        candidates, records, texts, "clip", ["sharpness"], {"tokens": [3, 4, 5, 2, 3]}, Stored()
    )
    assert table.column_names == [*COLUMNS, "sharpness", "tokens", "url", "votes"]
    rows = table.to_pydict()
    assert rows["key"] == ["a", "a", "a", "b", "c"]
    assert rows["caption_index"] == [0, 1, 2, 0, 0]
    assert rows["caption"] == ["one", "two", "unscored", "", "one"]
    assert rows["has_caption"] == [True, True, True, False, True]
    assert rows["clip_similarity"] == [1.0, pytest.approx(0.6, abs=5e-4), None, None, None]
    assert rows["image_embedding"] == [X.tobytes(), None, None, Y.tobytes(), None]
    assert rows["text_embedding"] == [X.tobytes(), texts["two"].tobytes(), None, None, None]
    assert rows["pixels_sha256"] == ["1a", "1a", "1a", "1b", ""]
    assert rows["error"] == ["", "", "", "", "missing file"]
    assert rows["sharpness"] == [0.5, 0.5, 0.5, None, None]
    assert rows["url"] == ["u", "u", "u", None, None]
    assert rows["votes"] == [None, None, None, 3, None]
    assert set(rows["clip_model"]) == {"clip"}


def test_values_of_several_types_become_text():
    assert source_column([1, None, 2.5]).to_pylist() == [1.0, None, 2.5]
    assert source_column([1, "a", 2.0, None]).to_pylist() == ["1", "a", "2", None]
