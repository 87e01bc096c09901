"""A picture that was fetched is found by the row that asked for it, and what was not has its reason."""

import os

import pytest

from curate import readers
from curate.fetch.answer import Answer
from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.pipeline import fetching
from curate.readers.matching import matches
from curate.run.locks import locked
from curate.run.schema import Busy, UserError
from tests.curate.fetch.test_store import config_of, fetch, picture

GONE = "not fetched: nothing is there (404, 410)"


def stored(number):
    return Answer("stored", "", picture(number), "jpg", 8, 4, 200)


def write(path, rows):
    path.write_text("".join(f"{url}\t{caption}\n" for url, caption in rows))
    return path


def read(path, folder, **options):
    return readers.read(config_of(path, folder, **options))


def found(source):
    """The number of each row's picture, or the reason why there is none."""
    pictures = {picture(number): number for number in range(9)}
    reasons = []
    for candidate in source.candidates():
        try:
            reasons.append(pictures[source.load(candidate.location)])
        except UnreadableImage as error:
            reasons.append(error.reason)
    return reasons


def fetched(path, folder, answers):
    """Fetch a table whose rows, which may share an address, get these answers in turn."""
    left = iter(answers)
    return fetch(path, folder, lambda _: next(left))


def test_two_rows_of_one_address_have_each_the_answer_to_their_own_request(tmp_path):
    rows = [("http://x/0.jpg", "one"), ("http://x/0.jpg", "two"), ("http://x/0.jpg", "two")]
    table = write(tmp_path / "t.tsv", rows)
    fetched(table, tmp_path / "images", [stored(1), stored(2), Answer("not_found")])
    source = read(table, tmp_path / "images")
    assert found(source) == [1, 2, GONE]
    assert source.notes == ["rows whose image could not be fetched: 1, such as t.tsv:3"]


def test_a_row_whose_request_failed_gets_no_picture_by_a_guess(tmp_path):
    rows = [("http://x/1.jpg", "a"), ("http://y/1.jpg", "b")]
    table = write(tmp_path / "t.tsv", rows)
    fetched(table, tmp_path / "images", [Answer("timeout"), stored(2)])
    (tmp_path / "images/1.jpg").write_bytes(picture(3))  # that nothing is noted of
    assert found(read(table, tmp_path / "images")) == [
        *("not fetched: no whole answer in time", 2),
    ]


def test_a_file_that_a_row_names_wins_over_what_was_fetched(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("http://x/1.jpg\ta\tmine.jpg\n")
    columns = {"columns": ["url", "caption", "file_name"]}
    fetch(table, tmp_path / "images", lambda _: Answer("not_found"), **columns)
    (tmp_path / "images/mine.jpg").write_bytes(picture(3))
    assert found(read(table, tmp_path / "images", **columns)) == [3]


@pytest.mark.parametrize("change", ["renamed", "rows before"])
def test_rows_that_are_not_known_again_find_their_pictures_by_address_and_caption(tmp_path, change):
    rows = [("http://x/0.jpg", "one"), ("http://x/0.jpg", "two"), ("http://x/3.jpg", "three")]
    rows += [("http://x/4.jpg", "four")]
    table = write(tmp_path / "t.tsv", rows)
    answers = [stored(1), stored(2), stored(3), Answer("not_found")]
    fetched(table, tmp_path / "images", answers)
    if change == "renamed":
        table = table.rename(tmp_path / "other.tsv")
        assert found(read(table, tmp_path / "images")) == [1, 2, 3, MISSING_FILE]
    else:
        write(table, [("http://x/9.jpg", "new"), *rows])
        assert found(read(table, tmp_path / "images")) == [MISSING_FILE, 1, 2, 3, MISSING_FILE]


def test_the_reason_follows_when_a_failure_becomes_another_or_a_picture(tmp_path):
    """Measured parts and their caches know a row again by its version."""
    table = write(tmp_path / "t.tsv", [("http://x/0.jpg", "a"), ("http://x/1.jpg", "b")])
    versions = []
    for answers in ([Answer("timeout")] * 2, [Answer("rate_limited"), stored(2)]):
        left = iter(answers)
        again = bool(versions)
        fetch(table, tmp_path / "images", lambda _, left=left: next(left), again=again)
        versions.append([each.version for each in read(table, tmp_path / "images").candidates()])
    assert not {*versions[0]} & {*versions[1]}
    assert found(read(table, tmp_path / "images")) == [
        *("not fetched: the host asks for fewer requests (429)", 2)
    ]


def test_tables_of_several_folders_keep_their_rows_apart(tmp_path):
    folder = tmp_path / "tables"
    for part in ("a", "b"):
        (folder / part).mkdir(parents=True)
        write(folder / part / "t.tsv", [("http://x/0.jpg", "the same")])
    fetched(folder, tmp_path / "images", [stored(1), stored(2)])
    assert found(read(folder, tmp_path / "images")) == [1, 2]
    (folder / "c").mkdir()
    write(folder / "c/t.tsv", [("http://x/0.jpg", "the same")])
    fetched(folder, tmp_path / "images", [Answer("refused")])
    assert found(read(folder, tmp_path / "images")) == [
        *(1, 2, "not fetched: the host refuses (401, 403, 451)"),
    ]


def test_places_in_a_shard_that_was_written_again_are_not_read(tmp_path):
    """Asked again while a curation reads: at the same place there is another row's picture."""
    table = write(tmp_path / "t.tsv", [(f"http://x/{n}.jpg", "a") for n in range(3)])
    folder = tmp_path / "images"
    fetched(table, folder, [Answer("timeout"), stored(1), stored(2)])
    source = read(table, folder)
    places = [each.location for each in source.candidates()]
    assert source.load(places[1]) == picture(1)
    fetch(table, folder, lambda _: stored(3), again=True)
    with pytest.raises(UserError, match=r"000000\.tar was replaced while .* same command again"):
        source.load(places[1])
    assert found(read(table, folder)) == [3, 1, 2]


def test_a_shard_that_became_shorter_or_is_linked_elsewhere(tmp_path):
    table = write(tmp_path / "t.tsv", [(f"http://x/{n}.jpg", "a") for n in range(3)])
    fetched(table, tmp_path / "images", [stored(1), stored(2), stored(3)])
    tar = tmp_path / "images/000000.tar"
    source = read(table, tmp_path / "images")
    places = [each.location for each in source.candidates()]
    os.link(tar, tmp_path / "copy.tar")
    assert source.load(places[2]) == picture(3)
    tar.unlink()
    tar.write_bytes((tmp_path / "copy.tar").read_bytes()[:1024])
    with pytest.raises(UserError, match="was replaced"):
        source.load(places[2])


def test_while_fetched_pictures_are_read_nothing_is_fetched_there(tmp_path):
    table = write(tmp_path / "t.tsv", [("http://x/1.jpg", "a")])
    folder = tmp_path / "images"
    config = config_of(table, folder)
    with fetching.reading(config):  # nothing is there yet
        fetched(table, folder, [stored(1)])
    with fetching.reading(config), fetching.reading(config):
        with pytest.raises(Busy, match=r"dataset\.images_dir"):
            fetched(table, folder, [])
        assert found(read(table, folder)) == [1]
    fetched(table, folder, [])
    with locked(folder), pytest.raises(Busy), fetching.reading(config):
        pass


def test_other_captions_of_the_same_rows_keep_pictures_and_reasons(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("http://x/1.jpg\tone\tuno\nhttp://x/2.jpg\ttwo\tdos\n")
    columns = {"columns": ["url", "caption", "spanish"]}
    answers = iter([stored(1), Answer("not_found")])
    fetch(table, tmp_path / "images", lambda _: next(answers), **columns)
    for chosen in (["spanish"], ["caption", "spanish"]):
        options = columns | {"caption_columns": chosen}
        assert found(read(table, tmp_path / "images", **options)) == [1, GONE]
        assert fetch(table, tmp_path / "images", **options)[0] == []


def test_with_a_limit_rows_behind_it_are_read_only_for_guesses(tmp_path, monkeypatch):
    rows = [(f"http://x/{n}.jpg", f"caption {n}") for n in range(300)]
    table = write(tmp_path / "t.tsv", rows)
    fetch(table, tmp_path / "images", stored, limit=3)
    read_rows, real = [], matches._Matching.add
    monkeypatch.setattr(
        matches._Matching, "add", lambda *args: [read_rows.append(args[1]), real(*args)]
    )
    assert found(read(table, tmp_path / "images", limit=3)) == [0, 1, 2]
    assert len(read_rows) == 3
    assert len(found(read(table, tmp_path / "images", limit=5))) == 5  # not from the index of three
    (tmp_path / "images/4.jpg").write_bytes(picture(4))  # which any row may mean
    read_rows.clear()
    assert found(read(table, tmp_path / "images", limit=5))[4] == 4
    assert len(read_rows) == 300
