"""Pictures are divided by what the curation knew of them, as finely as their number allows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from curate.run.manifest import read_manifest
from evaluate.measure.parts import divide, pieces, read_table
from tests.finetune.conftest import curate


def table(count=120, **columns):
    rng = np.random.default_rng(0)
    found = {
        "source": ["coco", "cc3m", "cc3m"] * (count // 3),
        "caption": ["one", "two words", "as many as four"] * (count // 3),
        "similarity": rng.uniform(0.2, 0.4, count),
        "siblings": [0, 0, 2] * (count // 3),
    }
    return pd.DataFrame(found | columns)


def groups(count):
    return [f"g{i}" for i in range(count)]


@pytest.mark.parametrize(("count", "expected"), [(120, 10), (119, 5), (48, 4), (30, 2), (20, 0)])
def test_few_groups_are_divided_into_few_pieces(count, expected):
    found = pieces(pd.Series(np.arange(200.0)), count)
    if expected:
        assert len(found.categories) == expected
        assert np.bincount(found.codes).min() >= 200 // expected - 1
    else:
        assert found == "20 groups of pictures are too few to divide"


def test_pieces_are_in_order_and_say_their_bounds():
    found = pieces(pd.Series([0.4, 0.1, np.nan, 0.3, 0.2]), 40)
    assert list(found.categories) == [
        "lowest third (0.1 to 0.2)",
        "2nd third (0.3)",
        "highest third (0.4)",
    ]
    assert found.codes.tolist() == [2, 0, -1, 1, 0]


def test_equal_values_are_in_one_piece():
    found = pieces(pd.Series([1] * 30 + [2] * 5 + [9] * 5), 60, "words", most=4)
    assert list(found.categories) == ["1 word", "2 to 9 words"]
    assert pieces(pd.Series([np.nan] * 9), 60) == "it is not known of any picture"


def test_every_dimension_is_divided_or_says_why_not():
    found = divide(table(dataset="one"), groups(120), None)
    assert list(found.labels) == ["source", "caption length", "similarity", "duplicates"]
    assert list(found.labels["source"].categories) == ["cc3m", "coco"]
    assert list(found.labels["caption length"].categories) == ["1 word", "2 words", "4 words"]
    assert found.labels["duplicates"].value_counts().to_dict() == {"alone": 80, "with siblings": 40}
    assert found.missing == {
        "data set": "it is the same for all pictures",
        "rule margin": "the rules of the curation are not known",
    }


def test_the_margin_of_the_similarity_alone_is_not_divided_twice():
    similar = pd.DataFrame({"clip_similarity": np.arange(120.0), "aspect": 2.0})
    assert "see similarity" in divide(table(), groups(120), similar).missing["rule margin"]
    both = similar.assign(bytes=np.arange(120.0)[::-1])
    assert len(divide(table(), groups(120), both).labels["rule margin"].categories) == 10


def test_the_tables_say_of_each_picture_what_the_curation_knew(tmp_path):
    curate(tmp_path, {"train": 12, "val": 20})
    keys = ["val-011", "val-003"]
    found = read_table(tmp_path, read_manifest(tmp_path).shards_of("val"), keys)
    assert found["key"].tolist() == keys
    assert found["source"].tolist() == ["random", "random"]
    assert found["siblings"].tolist() == [0, 0]
    assert found["similarity"].isna().all()  # this curation has none
