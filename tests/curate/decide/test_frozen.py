"""A picture that was held out is known again, with its group, and what became of the others is counted."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from curate.decide.frozen import BY, GONE, JOINED, REPLACED, Frozen
from curate.decide.held_out import COLUMNS, digest, merged
from curate.decide.split import LARGEST_HELD_OUT
from tests.curate.decide.judging import database

FAR = 0xFFFF_0000_FFFF_0000  # 32 bits from 0


def sha(number):
    return f"{number:064x}"


def pixels(number):
    return f"{number:016x}"


def picture(key, file, look=0, group="", **changes):
    """A decoded picture, in a group of its own unless named."""
    row = {"key": key, "sha256": sha(file), "pixels_sha256": pixels(1000 + file)}
    row |= {"phash": f"{look:016x}", "duplicate_group": group or f"group of {key}"}
    return row | {"kept": True, "rule": "", "split": "train"} | changes


def listed(key, file, side, phash=None, **changes):
    row = {"key": key, "sha256": sha(file), "split": side, "pixels_sha256": pixels(1000 + file)}
    return row | {"phash": "" if phash is None else f"{phash:016x}"} | changes


class Found:
    """What ``Frozen`` says of some pictures, by key, and what became of the listed ones."""

    def __init__(self, pictures, rows):
        none = pd.DataFrame(columns=list(COLUMNS), dtype="str")
        table = merged(none, pd.DataFrame(rows)) if rows else none
        pairs = pd.DataFrame(pictures)
        first = pairs.drop_duplicates("key").reset_index(drop=True)
        with database(images=images(first), groups=groups(first)) as connection:
            frozen = Frozen(connection, table)
            of_key = connection.sql(
                f"SELECT images.key, coalesce(side, ''), {BY} FROM images LEFT JOIN groups USING (image) {JOINED}"
            ).fetchall()
            self.sides = {key: side for key, side, _ in of_key}
            self.by = {key: by for key, _, by in of_key}
            pairs["split"] = [self.sides[key] or "train" for key in pairs["key"]]
            tell(connection, pairs, first)
            self.outcome = frozen.outcome()


def images(first):
    def numbers(texts):
        return pa.array([int(text[:16], 16) if text else None for text in texts], pa.uint64())

    names = ("pixels_sha256", "phash")
    pixels, phash = (numbers(first[name]) for name in names)
    known = {name: first[name].tolist() for name in ("key", "sha256")}
    return pa.table({"image": np.arange(len(first)), **known, "pixels": pixels, "phash": phash})


def groups(first):
    """By number, in the order of their names; none where a picture has no group."""
    order = sorted({*first["duplicate_group"]} - {""})
    chosen = np.flatnonzero(first["duplicate_group"] != "")
    names = [order.index(first["duplicate_group"][row]) for row in chosen]
    return pa.table({"image": chosen, "name": pa.array(names, pa.uint64())})


def tell(connection, pairs, first):
    """The tables ``kept_images`` and ``image_fates``, by the pictures' own ``kept, rule, split``."""
    connection.sql("CREATE TABLE kept_images(image BIGINT, split VARCHAR, name UBIGINT)")
    connection.sql("CREATE TABLE image_fates(image BIGINT, fate VARCHAR)")
    for image, key in enumerate(first["key"]):
        rows = pairs[pairs["key"] == key]
        side, fate = rows["split"].iloc[0], rows["rule"].iloc[0]
        if rows["kept"].any():
            fate = side
            query = "INSERT INTO kept_images SELECT image, ?, name FROM groups WHERE image = ?"
            connection.sql(query, params=[side, image])
        connection.sql("INSERT INTO image_fates VALUES (?, ?)", params=[image, fate])


def sides(pictures, rows):
    return Found(pictures, rows).sides


def outcome(pictures, rows):
    """After the split has done what it is asked to."""
    return Found(pictures, rows).outcome


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_picture_is_known_by_its_file_or_its_pixels_whatever_its_key(side):
    rows = [listed("old name", 1, side), listed("b", 2, side, pixels_sha256="")]
    again = [picture("new name", 1), picture("b", 2), picture("c", 3)]
    assert sides(again, rows) == {"new name": side, "b": side, "c": ""}
    other_file = picture("new name", 9, pixels_sha256=pixels(1001) + "f" * 48)
    assert sides([other_file], rows) == {"new name": side}
    assert sides([picture("x", 9)], rows) == {"x": ""}


@pytest.mark.parametrize(
    ("now", "then", "side"),
    [(0b1111, 0, "val"), (0b11111, 0, ""), (FAR, 0, ""), (0, None, ""), (None, 0, "")],
)
def test_the_same_key_counts_only_where_the_picture_looks_the_same(now, then, side):
    """Saved again, its hash differs in 4 bits at most; another picture, or one that is not known, does not count."""
    changes = {} if now is not None else {"phash": "", "pixels_sha256": ""}
    again = [picture("a", 9, now or 0, **changes)]
    assert sides(again, [listed("a", 1, "val", then)]) == {"a": side}


def test_the_whole_group_is_held_out_even_by_a_picture_that_is_dropped():
    again = [
        picture("new", 7, group="one"),
        picture("old", 1, group="one", kept=False, rule="duplicate"),
        picture("alone", 8),
    ]
    found = Found(again, [listed("old", 1, "val")])
    assert found.sides == {"new": "val", "old": "val", "alone": ""}
    assert found.by == {"new": "old", "old": "old", "alone": ""}


def test_pictures_that_are_not_decoded_freeze_nobody():
    """Their group is no group."""
    bare = {"pixels_sha256": "", "phash": "", "kept": False, "rule": "unreadable"}
    again = [picture("a", 1, **bare), picture("b", 2, **bare), picture("c", 3)]
    again = [row | ({"duplicate_group": ""} if not row["pixels_sha256"] else {}) for row in again]
    assert sides(again, [listed("a", 1, "val")]) == {"a": "", "b": "", "c": ""}


def test_of_both_sides_test_wins_and_is_counted():
    again = [
        picture("a", 1, group="one"),
        picture("b", 2, group="one"),
        picture("bridge", 3, group="one"),
        picture("c", 4, group="two"),
        picture("d", 5, group="two"),
    ]
    rows = [listed("b", 2, "test"), listed("a", 1, "val"), listed("c", 4, "val")]
    for order in (rows, rows[::-1]):
        frozen = Found(again, order)
        assert [frozen.sides[row["key"]] for row in again] == [*["test"] * 3, *["val"] * 2]
        assert [frozen.by[row["key"]] for row in again] == ["b", "b", "b", "c", "c"]
    found = outcome(again, rows)
    assert (found.of_both, found.moved, found.joined) == (1, 1, 2)
    assert found.sides == {"val": 1, "test": 2}
    assert found.left == {}


def test_every_listed_picture_is_accounted_for():
    gone, bare = {"kept": False}, {"pixels_sha256": "", "phash": "", "duplicate_group": ""}
    again = [
        picture("kept", 1),
        picture("renamed", 2),
        picture("saved again", 93, 0b11),
        picture("copy", 4, **gone, rule="duplicate"),
        picture("dropped", 5, **gone, rule="clip_similarity"),
        picture("removed", 6, **gone, rule="removed"),
        picture("replaced", 97, FAR),
        picture("unread", 98, **gone, rule="unreadable", **bare),
        picture("too small", 9, **gone, rule="min_side", **bare),
        picture("another", 99),
    ]
    names = ["kept", "before", "saved again", "copy", "dropped", "removed", "replaced", "unread"]
    names += ["too small", "gone"]
    rows = [listed(name, number, "val", 0) for number, name in enumerate(names, 1)]
    rows[1]["split"] = "test"
    found = outcome(again, rows)
    assert found.sides == {"val": 2, "test": 1}
    assert found.left == {
        "clip_similarity": 1,
        "duplicate": 1,
        "min_side": 1,
        "removed": 1,
        "unreadable": 1,
        REPLACED: 1,
        GONE: 1,
    }
    assert sum(found.sides.values()) + sum(found.left.values()) == found.listed == len(rows)
    assert found.joined == 0
    assert found.digest == digest(pd.DataFrame(rows))


def test_a_picture_that_is_kept_under_another_key_is_not_gone():
    again = [
        picture("one", 1, kept=False, rule="duplicate", group="g"),
        picture("two", 1, group="g"),
    ]
    found = outcome(again, [listed("one", 1, "val")])
    assert found.sides == {"val": 1, "test": 0}
    assert found.left == {}


def test_a_picture_with_a_kept_caption_is_kept():
    again = [
        picture("a", 1, kept=False, rule="caption_words"),
        picture("a", 1),
        picture("b", 2, kept=False, rule="caption_words"),
        picture("b", 2, kept=False, rule="clip_similarity"),
    ]
    found = outcome(again, [listed("a", 1, "val"), listed("b", 2, "val")])
    assert found.sides == {"val": 1, "test": 0}
    assert found.left == {"caption_words": 1}


def test_large_groups_are_counted():
    again = [picture(f"k{n:02d}", n, group="one") for n in range(LARGEST_HELD_OUT + 1)]
    again += [picture(f"m{n:02d}", 100 + n, group="two") for n in range(LARGEST_HELD_OUT)]
    found = outcome(again, [listed("k05", 5, "val"), listed("m05", 105, "val")])
    assert (found.large, found.in_large) == (1, LARGEST_HELD_OUT + 1)
    assert found.joined == 2 * LARGEST_HELD_OUT - 1


def test_an_empty_table_freezes_nobody():
    none = Found([picture("a", 1)], [])
    assert none.sides == {"a": ""}
    found = none.outcome
    assert (found.listed, found.sides, found.left) == (0, {"val": 0, "test": 0}, {})
