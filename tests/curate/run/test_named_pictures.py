"""Which pictures a text names: against rows whose names are chosen."""

import hashlib

import pandas as pd
import pytest

from curate.run import named_pictures
from curate.run.schema import UserError

ROWS = pd.DataFrame(
    [
        ("one", "1" * 64, "a/cat.jpg", "a/cat.jpg"),
        ("one", "1" * 64, "a/cat.jpg", "a/cat.jpg"),  # of another caption
        ("two", "2" * 64, "b/cat.jpg", "b/cat.jpg"),
        ("three", "3" * 64, "cat.jpg", "cat.jpg"),
        ("four", "", "bob cat.jpg", "bob cat.jpg"),  # dropped before its bytes were read
        ("five", "5" * 64, None, "sets/train.tar:512:77"),
        ("six", "6" * 64, "c/fox.x.png", "c/fox.x.png"),
    ],
    columns=["key", "sha256", "file_name", "location"],
)


def keys(text, rows=ROWS):
    found = named_pictures.find(str(text), lambda columns: rows[[c for c in columns if c in rows]])
    assert list(found.columns) == ["key", "sha256"]
    return found["key"].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two", ["two"]),
        ("2" * 64, ["two"]),
        ("b/cat.jpg", ["two"]),
        ("/data/b/cat.jpg", ["two"]),  # not cat.jpg, although that is its end too
        ("cat.jpg", ["three"]),
        ("/data/cat.jpg", ["three"]),
        ("bob cat.jpg", ["four"]),
        ("fox.x.png", ["six"]),
        ("fox.x", ["six"]),
        ("c/fox.x", ["six"]),
        ("fox", []),
        ("ox.x.png", []),
        ("", []),
        ("/", []),
        ("nobody.jpg", []),
    ],
)
def test_a_picture_by_any_of_its_names(text, expected):
    assert keys(text) == expected


def test_a_name_in_several_folders_is_all_of_them():
    assert keys("cat.jpg", ROWS[ROWS["key"] != "three"]) == ["one", "two"]
    assert keys("cat", ROWS[ROWS["key"] != "three"]) == ["one", "two"]
    many = pd.DataFrame(
        [(f"k{n}", f"{n:064x}", f"{n}/x.jpg", "") for n in range(named_pictures.MOST + 1)],
        columns=ROWS.columns,
    )
    with pytest.raises(UserError, match=r"21 pictures are called 'x.jpg': k0, k1, .* more of the"):
        keys("x.jpg", many)
    assert keys("7/x.jpg", many) == ["k7"]


def test_a_file_that_is_there_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "b" / "cat.jpg"
    path.parent.mkdir()
    path.write_bytes(b"cat")
    rows = ROWS.copy()
    rows.loc[rows["key"] == "six", "sha256"] = hashlib.sha256(b"cat").hexdigest()
    assert keys(path, rows) == ["six"]
    with pytest.raises(UserError, match="one of that name has the key two, and its bytes"):
        keys(path)
    unread = path.with_name("bob cat.jpg")
    unread.write_bytes(b"whatever it is")
    assert keys(unread) == ["four"]


def test_names_are_read_only_where_no_identity_is_found():
    asked = []

    def rows(columns):
        asked.append(list(columns))
        return ROWS[[*columns]]

    named_pictures.find("two", rows)
    assert asked == [["key", "sha256"]]


def test_tables_without_names_have_none():
    assert keys("cat.jpg", ROWS[["key", "sha256"]].assign(other="")) == []
