"""Names of duplicate groups, against a loop over the members of each."""

import hashlib
import random

import numpy as np
import pandas as pd
import pytest

from curate.decide.group_names import group_names


def oracle(labels, pixels, given):
    names = []
    for label in labels:
        members = [row for row, other in enumerate(labels) if other == label]
        told = [given[row] for row in members if given[row]]
        if told:
            names.append(hashlib.blake2b(min(told).encode(), digest_size=8).hexdigest())
        else:
            names.append(min(pixels[row] for row in members))
    return names


@pytest.mark.parametrize("told", ["nothing", "some", "all", "no column"])
@pytest.mark.parametrize("seed", range(8))
def test_as_the_oracle(seed, told):
    draw = random.Random(seed)
    count = draw.randrange(60)
    labels = [draw.randrange(20) for _ in range(count)]
    pixels = [f"{draw.randrange(2**64):016x}" for _ in range(count)]
    share = {"nothing": 0, "some": 0.3, "all": 1, "no column": 0}[told]
    given = [
        f"photo {draw.randrange(30)}" if draw.random() < share else draw.choice(["", None])
        for _ in range(count)
    ]
    index = draw.sample(range(1000), count)
    found = group_names(
        np.array(labels, np.int64),
        pd.Series(pixels, index, "str"),
        np.array([int(digits, 16) for digits in pixels], np.uint64),
        None if told == "no column" else pd.Series(given, index, "str"),
    )
    assert found.tolist() == oracle(labels, pixels, given)
    assert found.index.tolist() == index
