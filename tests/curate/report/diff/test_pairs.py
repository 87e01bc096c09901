"""Pairs are matched as a plain search over all rows would, in the documented steps."""

import random

import numpy as np
import pandas as pd
import pytest

from curate.report.diff.pairs import match

STEPS = (
    lambda row: (row["key"], row["sha256"], row["caption"]),
    lambda row: (row["sha256"], row["caption"]) if row["sha256"] else None,
    lambda row: (row["key"], row["caption"]),
    lambda row: (row["key"],),
)


def frame(*rows):
    return pd.DataFrame(
        [
            dict(zip(("key", "caption_index", "caption", "sha256"), row, strict=True))
            for row in rows
        ],
        columns=["key", "caption_index", "caption", "sha256"],
    ).astype({"key": "str", "caption": "str", "sha256": "str", "caption_index": "int64"})


def naive(before, now):
    """{(row before, row now)} by nested loops over dictionaries."""

    def listed(table):
        rows = [row | {"row": number} for number, row in enumerate(table.to_dict("records"))]
        return sorted(rows, key=lambda row: (row["key"], row["caption_index"], row["caption"]))

    first, second, found = listed(before), listed(now), set()
    for step in STEPS:
        for one in list(first):
            for two in list(second):
                if step(one) is not None and step(one) == step(two):
                    found.add((one["row"], two["row"]))
                    first.remove(one)
                    second.remove(two)
                    break
    return found


def drawn(seed, count):
    """A ledger over few names, so that everything collides; some pictures are not known."""
    draw = random.Random(seed)
    hashes = {key: draw.choice("ABCD") * draw.choice((0, 1, 1)) for key in "klmnopq"}
    seen: dict[str, int] = {}
    rows = []
    for _ in range(count):
        key = draw.choice("klmnopq")
        seen[key] = seen.get(key, -1) + 1
        rows.append((key, seen[key], draw.choice("xyz"), hashes[key]))
    draw.shuffle(rows)
    return frame(*rows)


@pytest.mark.parametrize("seed", range(60))
def test_random_ledgers_match_as_by_nested_loops(seed):
    before, now = drawn(seed, seed % 23), drawn(seed + 1000, (seed * 7) % 19)
    found = match(before, now)
    assert set(zip(found.before.tolist(), found.now.tolist(), strict=True)) == naive(before, now)
    assert sorted([*found.before, *found.gone]) == list(range(len(before)))
    assert sorted([*found.now, *found.added]) == list(range(len(now)))


@pytest.mark.parametrize(
    ("before", "now", "pairs"),
    [
        (("k", 0, "cat", "A"), ("k", 0, "cat", "A"), 1),  # the same
        (("k", 0, "cat", "A"), ("l", 0, "cat", "A"), 1),  # renamed
        (("k", 0, "cat", ""), ("l", 0, "cat", ""), 0),  # of unknown pictures nothing is renamed
        (("k", 0, "cat", "A"), ("l", 0, "dog", "A"), 0),  # another caption under another key
        (("k", 0, "cat", "A"), ("k", 0, "dog", "A"), 1),  # another caption
        (("k", 0, "cat", "A"), ("k", 0, "cat", "B"), 1),  # another picture
        (("k", 0, "cat", "A"), ("k", 0, "cat", ""), 1),  # a picture that cannot be read now
        (("k", 0, "cat", "A"), ("k", 0, "dog", "B"), 1),  # both
    ],
)
def test_single_pairs(before, now, pairs):
    assert len(match(frame(before), frame(now)).now) == pairs


def test_numbered_files_that_all_move_up_by_one_are_renamed():
    before = frame(*((f"{i:03}", 0, f"caption {i}", f"hash {i}") for i in range(50)))
    now = frame(*((f"{i + 1:03}", 0, f"caption {i}", f"hash {i}") for i in range(50)))
    found = match(before, now)
    assert found.before.tolist() == found.now.tolist() == list(range(50))


def test_the_order_of_the_rows_decides_nothing():
    before, now = drawn(5, 40), drawn(6, 40)

    def contents(before, now):
        found = match(before, now)
        pairs = (before.iloc[found.before], now.iloc[found.now])
        return sorted(map(str, np.hstack([side.to_numpy() for side in pairs]).tolist()))

    shuffled = [table.sample(frac=1, random_state=3, ignore_index=True) for table in (before, now)]
    assert contents(*shuffled) == contents(before, now)
