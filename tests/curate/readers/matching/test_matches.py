"""Matching rows with pictures over a whole set, against a slow oracle that compares everything with everything."""

import random
import sqlite3
import unicodedata
from contextlib import closing
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pytest

from curate.measures.not_fetched import location_of, state_at
from curate.readers.matching.claims import Picture, Row, mark
from curate.readers.matching.matches import Match, fill, match, stored

NAMES = ["1.jpg", "2.jpg", "12.5.jpg", "A.jpg", "a.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "1.png"]
FOLDERS = ["", "cats/", "dogs/", "x/cats/", "Cats/"]
PREFIXES = ["", "/mnt/old/", "..\\", "C:\\x\\", "x/"]
URLS = [
    f"http://{host}/{name}"
    for host in "ab"
    for name in ("1.jpg", "2.jpg", "A.jpg", "caf%C3%A9.jpg")
]
IDS = ["1", "2", "12", "12.5", "a", "A", "1.jpg", "u1"]


def draw_picture(rng, path):
    if rng.random() < 0.7:
        return Picture(path), {}
    url, uid = rng.choice(URLS), rng.choice(["", "u1"])
    return Picture(path, "", mark(url), mark(uid)), {"url": url, "caption": "c", "uid": uid}


def draw_row(rng):
    folder = rng.choice(FOLDERS)
    path = rng.choice(PREFIXES) + folder + rng.choice(NAMES)
    return Row(
        paths=(path,) if rng.random() < 0.5 else (),
        addresses=(rng.choice(URLS),) if rng.random() < 0.4 else (),
        key=rng.choice(IDS) if rng.random() < 0.2 else "",
        ids=(rng.choice(IDS),) if rng.random() < 0.4 else (),
        table=rng.choice("st"),
    )


def draw_world(rng):
    paths = {rng.choice(FOLDERS) + rng.choice(NAMES) for _ in range(rng.randint(1, 6))}
    pictures = [draw_picture(rng, path) for path in sorted(paths)]
    rows = [draw_row(rng) for _ in range(rng.randint(1, 6))]
    again = replace(rng.choice(rows), ids=(rng.choice(IDS),))
    return pictures, [*rows, again]


# ---- the oracle: strengths are tuples, compared over all rows and pictures


def nfc(text):
    return unicodedata.normalize("NFC", text)


def unlike(a, b):
    """0 same, 1 same composed, 2 same but for letter case, None different."""
    pairs = [(a, b), (nfc(a), nfc(b)), (nfc(nfc(a).casefold()), nfc(nfc(b).casefold()))]
    return next((i for i, (x, y) in enumerate(pairs) if x == y), None)


def split(path):
    below = path.replace("\\", "/").rpartition("../")[2]
    return [part for part in below.split("/") if part and part != "."]


def strength(row, picture, noted):
    parts, name = split(picture.location), split(picture.location)[-1]
    stem = name.rsplit(".", 1)[0]
    url = noted.get("url")
    if url and row.addresses and url not in row.addresses:
        return None
    for path in row.paths:
        theirs = split(path)
        short = min(len(parts), len(theirs))
        differences = [unlike(x, y) for x, y in zip(parts[-short:], theirs[-short:], strict=True)]
        if None not in differences:
            whole = len(parts) == len(theirs)
            return (1, not whole, 0 if whole else -short, max(differences))
        if unlike(theirs[-1], name) is not None:
            return None
    ways = []
    if url and row.key:
        ways.append((2, unlike(row.key, stem)))
    if noted.get("uid") in row.ids:
        ways.append((3, 0))
    if not url:
        ways += [(3, unlike(id_, own)) for id_ in row.ids for own in (name, stem)]
    ends = [urlsplit(address).path.split("/")[-1] for address in row.addresses]
    ways += [(4, unlike(end, name)) for raw in ends for end in (raw, unquote(raw))]
    return min((way for way in ways if way[1] is not None), default=None)


def exact(row, pictures):
    for path in row.paths:
        for picture, _ in pictures:
            if path == picture.location:
                return picture
    for picture, noted in pictures:
        if row.identity and noted.get("row") == row.identity:
            return picture
    for address in row.addresses:
        for picture, noted in pictures:
            if noted.get("url") == address:
                return picture
    return None


def said(row):
    if row.addresses or any(path[0] == "/" or path[1:2] == ":" for path in row.paths):
        return row.paths, row.addresses
    return (row.table, row.paths) if row.paths else (row.table, row.key, row.ids)


def oracle(pictures, rows):
    named = [exact(row, pictures) for row in rows]
    guessing = [row for row, picture in zip(rows, named, strict=True) if not picture]
    found = []
    for row, picture in zip(rows, named, strict=True):
        if picture:
            found.append(picture.location)
            continue
        there = [(p, n) for p, n in pictures if not state_at(p.location)]
        how = {p: s for p, n in there if (s := strength(row, p, n)) is not None}
        noted = dict(there)
        found.append("")
        for s in sorted(set(how.values())):
            equal = [p for p in how if how[p] == s]
            if len(equal) > 1 or equal[0] in named:
                continue
            rivals = [(strength(r, equal[0], noted[equal[0]]), said(r)) for r in guessing]
            if not any(t and (t < s or (t == s and who != said(row))) for t, who in rivals):
                found[-1] = equal[0].location
                break
    return found


# ---- what is tested


def matched(root, pictures, rows):
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, root, pictures, lambda _: rows)
        found = {line: Match(*said) for line, *said in stored(connection)}
    return [found[number].location if number in found else "" for number in range(len(rows))]


@pytest.fixture
def folder(tmp_path):
    """Gives a new folder with empty files of these names."""

    def make(number, pictures):
        root = tmp_path / str(number)
        for picture, _ in pictures:
            if state_at(picture.location):
                continue
            path = root / picture.location
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        root.mkdir(exist_ok=True)
        return root

    return make


def test_every_row_gets_what_the_oracle_says_in_any_order(folder):
    rng = random.Random(0)
    guessed = 0
    for number in range(400):
        pictures, rows = draw_world(rng)
        root = folder(number, pictures)
        expected = oracle(pictures, rows)
        assert matched(root, pictures, rows) == expected, (pictures, rows)
        order = rng.sample(range(len(rows)), len(rows))
        assert matched(root, pictures, [rows[i] for i in order]) == [expected[i] for i in order]
        urls = [noted["url"] for _, noted in pictures if noted]
        if len(set(urls)) == len(urls):  # else the first picture of an address counts
            assert matched(root, rng.sample(pictures, len(pictures)), rows) == expected
        guessed += sum(
            bool(f) and exact(r, pictures) is None for f, r in zip(expected, rows, strict=True)
        )
    assert guessed > 100


def draw_fetched_world(rng):
    """Some rows have a picture that was fetched for them, which notes an address, or had none to fetch."""
    pictures, rows = draw_world(rng)
    rows = [
        replace(row, identity=f"r{number}", ids=rng.choice([row.ids, ("timeout",)]))
        for number, row in enumerate(rows)
    ]
    free = [number for number in range(len(rows)) if rng.random() < 0.5]
    rng.shuffle(free)
    for number, (picture, noted) in enumerate(pictures):
        if noted and free and rng.random() < 0.7:
            pictures[number] = picture, {**noted, "row": f"r{free.pop()}"}
    others = ["of another table"] if rng.random() < 0.5 else []
    asked = [*(f"r{number}" for number in free), *others]
    failed = [(Picture(location_of("timeout")), {"row": row}) for row in asked]
    return [*pictures, *failed], rows


def test_a_row_is_given_what_was_fetched_for_it_or_nothing(folder):
    rng = random.Random(2)
    own = failed = 0
    for number in range(300):
        pictures, rows = draw_fetched_world(rng)
        found = matched(folder(number, pictures), pictures, rows)
        assert found == oracle(pictures, rows), (pictures, rows)
        at = {noted["row"]: picture.location for picture, noted in pictures if "row" in noted}
        for row, location in zip(rows, found, strict=True):
            if row.identity in at and location not in row.paths:
                assert location == at[row.identity]
                own, failed = own + 1, failed + bool(state_at(location))
    assert own > failed > 100


def test_no_two_rows_that_say_different_things_share_a_guess(folder):
    rng = random.Random(1)
    for number in range(200):
        pictures, rows = draw_world(rng)
        found = matched(folder(number, pictures), pictures, rows)
        taken = {}
        for row, location in zip(rows, found, strict=True):
            if location and exact(row, pictures) is None:
                assert taken.setdefault(location, said(row)) == said(row)
                assert location not in {p.location for r in rows if (p := exact(r, pictures))}


def test_a_moved_set_is_found_again_whole(folder):
    """Planted truth: all paths have a foreign beginning, and names repeat in every folder."""
    paths = [f"{letter}/{number}.jpg" for letter in "abcdef" for number in range(20)]
    pictures = [(Picture(path), {}) for path in paths]
    root = folder(0, pictures)
    rows = [Row(paths=(f"D:\\sets\\old\\{path}".replace("/", "\\"),)) for path in paths]
    assert matched(root, pictures, rows) == paths
    missing = [row for row in rows if not row.paths[0].endswith("a\\3.jpg")]
    assert "a/3.jpg" not in matched(root, pictures, missing)
    assert [m.note for m in match(root, rows)] == [
        "pictures matched by the end of their path"
    ] * 120


def test_a_name_that_many_files_share_finds_none_and_says_so(folder):
    paths = [f"{number}/image.jpg" for number in range(60)] + [f"own{n}.jpg" for n in range(5)]
    root = folder(0, [(Picture(path), {}) for path in paths])
    bare, foreign = match(root, [Row(paths=("image.jpg",)), Row(paths=("/old/7/image.jpg",))])
    assert bare == ("", "rows left without a picture, since several files have their name")
    assert foreign.location == "7/image.jpg"
    rows = [Row(paths=("image.jpg",), ids=(f"own{n}",)) for n in range(5)]
    assert [m.location for m in match(root, rows)] == paths[60:]


def test_a_file_is_not_the_only_one_of_a_name_that_many_share(folder):
    """The name 1.jpg is looked up, the name 1 without a suffix is not: ten files have it."""
    paths = ["1.jpg", *(f"{number}/1.png" for number in range(9))]
    root = folder(0, [(Picture(path), {}) for path in paths])
    row = Row(ids=("1",), addresses=("http://x/1.jpg",))
    assert match(root, [row]) == [
        ("", "rows left without a picture, since several files have their name")
    ]
    few = folder(1, [(Picture(path), {}) for path in paths[:3]])
    assert match(few, [row]) == match(root, [row])


def test_names_with_surrogates_and_no_names_at_all_are_missing(folder):
    root = folder(0, [(Picture("1.jpg"), {})])
    odd = [Row(), Row(paths=("\udcff.jpg", "a\0b", "/", "..")), Row(addresses=("http://[x",))]
    assert [m.location for m in match(root, odd)] == ["", "", ""]


def test_captions_of_one_picture_share_it(folder):
    root = folder(0, [(Picture("1.jpg"), {})])
    same = [Row(paths=("/old/1.jpg",), captions=(c,), ids=(c,)) for c in "abc"]
    assert [m.location for m in match(root, same)] == ["1.jpg"] * 3
    other = [*same, Row(paths=("/new/1.jpg",))]
    assert [m.location for m in match(root, other)] == [""] * 4
