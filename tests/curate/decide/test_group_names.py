"""Names of duplicate groups, against a loop over the members of each."""

import hashlib
import random

import pyarrow as pa
import pytest

from curate.decide import group_names as names_of_groups
from curate.decide.group_names import create_names
from curate.run.database import Limits, connect


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


@pytest.mark.parametrize("told", [0, 0.3, 1])
@pytest.mark.parametrize("seed", range(3))
def test_names_in_a_table(seed, told, tmp_path, monkeypatch):
    monkeypatch.setattr(names_of_groups, "_BLOCK", 2)
    draw = random.Random(seed)
    count = draw.randrange(1, 60)
    labels = [draw.randrange(20) for _ in range(count)]
    pixels = [draw.randrange(2**64) for _ in range(count)]
    texts = ["photo", "Photo", "zoo", "Zoë", "東京", "a\u0301", "\U0001f600", "\uffff"]
    given = [
        draw.choice(texts) if draw.random() < told else draw.choice(["", None])
        for _ in range(count)
    ]
    images = draw.sample(range(1000), count)
    with connect(Limits(tmp_path / "scratch", 100_000_000, 1 + seed % 2)) as connection:
        table = {"image": images, "pixels": pa.array(pixels, pa.uint64())}
        table["given_group"] = pa.array(given, pa.string())
        connection.register("images", pa.table(table))
        connection.register("labelled", pa.table({"image": images, "label": labels}))
        create_names(connection, "named", "labelled", tmp_path)
        found = dict(connection.sql("SELECT image, name FROM named").fetchall())
        assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(1,)]
    digits = [f"{number:016x}" for number in pixels]
    assert [f"{found[image]:016x}" for image in images] == oracle(labels, digits, given)
