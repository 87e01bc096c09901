"""How well a row names a picture: the order of the ways, spellings, and contradictions."""

import unicodedata

import pytest

from curate.readers.matching.claims import Claims, Picture, Row, Way, label, mark, rank

NFC = "caf\u00e9.jpg"
NFD = unicodedata.normalize("NFD", NFC)


def row(*paths, url="", **said):
    return Row(paths=paths, addresses=(url,) if url else (), **said)


BEST_FIRST = [
    (row("a/b/1.jpg"), "A/B/1.jpg"),
    (row("/old/a/b/1.jpg"), "a/b/1.jpg"),
    (row("/old/a/b/1.jpg"), "b/1.jpg"),
    (row("1.jpg"), "a/1.jpg"),
    (row(NFD), f"a/{NFC}"),
    (row("1.JPG"), "a/1.jpg"),
    (row(ids=("12.5",)), "12.5.jpg"),
    (row(url="http://x/1.jpg?w=3"), "a/1.jpg"),
    (row(url="http://x/caf%C3%A9.jpg"), NFD),
]


def test_the_more_names_agree_the_better():
    ranks = [rank(said, Picture(path)) for said, path in BEST_FIRST]
    assert None not in ranks
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize(
    ("said", "path"),
    [
        (row("dogs/1.jpg"), "cats/1.jpg"),
        (row("dogs/1.jpg", url="http://x/1.jpg"), "cats/1.jpg"),
        (row("dogs/1.jpg", ids=("1",)), "cats/1.jpg"),
        (row("11.jpg"), "1.jpg"),
        (row("b1.jpg"), "a/1.jpg"),
        (row(ids=("12",)), "12.5.jpg"),
        (row(ids=("7",)), "007.jpg"),
        (row(url="http://x/1.jpg/"), "1.jpg"),
        (row("..", ids=("",)), "1.jpg"),
    ],
)
def test_other_names_say_nothing(said, path):
    assert rank(said, Picture(path)) is None


def test_a_windows_path_and_one_that_leads_out_name_their_last_parts():
    assert rank(row("..\\images\\1.jpg"), Picture("1.jpg")) is not None
    assert rank(row("C:\\set\\a\\1.jpg"), Picture("a/1.jpg")) is not None
    assert rank(row("a/../1.jpg"), Picture("a/1.jpg")) is not None


def test_what_was_noted_contradicts():
    noted = Picture("0/5.jpg", address=mark("http://b/5"), uid=mark("u5"), sha256=mark("ab"))
    assert rank(row(url="http://a/5.jpg", key="5"), noted) is None
    assert rank(row("0/5.jpg", url="http://a/5.jpg"), noted) is None
    assert rank(row(key="5", sha256="cd"), noted) is None
    assert rank(row(key="5", sha256="AB"), noted) == 100 * Way.KEY
    assert rank(row(ids=("u5",)), noted) == 100 * Way.ID
    assert rank(row(ids=("5",)), noted) is None  # its name is the number of a download
    assert rank(row(key="5"), Picture("0/5.jpg")) is None


def test_a_tar_s_own_name_may_be_missing_from_the_path():
    member = Picture("sets/cats.tar:512:9", "a/1.jpg")
    for path in ("/old/cats/a/1.jpg", "cats/a/1.jpg", "images/a/1.jpg", "1.jpg"):
        assert rank(row(path), member) is not None
    assert rank(row("b/1.jpg"), member) is None


def test_labels_name_the_way_and_the_spelling():
    assert label(rank(row("/old/1.jpg"), Picture("1.jpg"))) == "the end of their path"
    spelled = label(rank(row("1.JPG"), Picture("1.jpg")))
    assert spelled == "the end of their path in another spelling"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_beside_stand_against_a_guess_but_are_told_apart(order):
    ours, theirs = row("/a/1.jpg"), row("/b/1.jpg", is_beside=True)
    claims = Claims(1)
    for said in (ours, theirs):
        claims.add(0, 120, said)
    assert not claims.admits(0, 120, ours.claimant)
    assert claims.is_beside(0)
    for which in order:
        claims.take(0, is_beside=bool(which))
    assert not claims.is_beside(0)  # one of the set's own rows names it exactly
