"""Answers that other settings decide: asked for again where these are wider, not kept where lists forbid them."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest

from curate import readers
from curate.fetch import picture, store
from curate.fetch.answer import Answer
from curate.fetch.config import FetchConfig
from curate.fetch.opt_out import OptOut
from curate.fetch.plan import FILE
from curate.fetch.requests import requests
from curate.fetch.settings import LISTED
from curate.readers.tables.entries import find
from curate.run.schema import UserError
from tests.curate.fetch.test_store import ROWS, config_of, write_table
from tests.curate.fetch.test_store import picture as picture_of

COUNT = 10


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "t.tsv", COUNT)


def stored(number):
    return Answer("stored", "", picture_of(number), "jpg", 8, 4, 200)


def fetch(table, folder, answers=stored, again=False, most=COUNT, **settings):
    """As the stage does, without a network: the numbers that were asked for, and the states, if it ended."""
    config, how = config_of(table, folder), FetchConfig(rows_per_shard=ROWS, **settings)
    tables, opt_out, asked = find(config, []), OptOut(how), []
    with store.opened(folder, config, tables, ROWS, again, how) as kept:
        for request in requests(config, how, tables, []):
            if not kept.pending(request):
                continue
            if len(asked) == most:
                return asked, None
            number = int(request.url.rpartition("/")[2].removesuffix(".jpg"))
            asked.append(number)
            kept.put(request, picture.checked(answers(number), request, opt_out))
        return asked, dict(kept.finish())


def write_list(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def states(folder):
    tables = [pq.read_table(path, columns=["state"]) for path in sorted(folder.glob("*.parquet"))]
    return [state for table in tables for state in table["state"].to_pylist()]


LOOSER = [
    ("too_large", {"max_mb": 1.0}, {"max_mb": 2.0}),
    ("too_many_pixels", {"max_pixels": 10}, {"max_pixels": 11}),
    ("redirects", {}, {"max_redirects": 6}),
    ("robots", {}, {"robots": False}),
    ("robots_unreachable", {}, {"robots": False}),
    ("forbidden_network", {}, {"allow_networks": ["10.0.0.0/8"]}),
    ("forbidden_network", {"allow_hosts": ["a"]}, {"allow_hosts": ["b"]}),
    ("changed", {}, {"verify": False}),
]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("state", "before", "now"), LOOSER)
def test_what_a_setting_forbade_is_asked_for_again_once_it_is_wider(
    table, tmp_path, state, before, now, again
):
    folder = tmp_path / "images"

    def answers(number):
        return Answer(state) if number in (1, 6) else stored(number)

    assert fetch(table, folder, answers, **before)[1] == {"stored": 8, state: 2}
    untouched = (folder / "000002.tar").read_bytes(), (folder / "000002.tar").stat().st_ino
    assert fetch(table, folder, **before) == ([], {"stored": 8, state: 2})
    assert fetch(table, folder, answers, again=again, **now) == ([1, 6], {"stored": 8, state: 2})
    assert fetch(table, folder, **now)[0] == []  # they have their answer under these settings
    assert fetch(table, folder, **before)[0] == ([1, 6] if "allow_hosts" in before else [])
    assert untouched == (
        (folder / "000002.tar").read_bytes(),
        (folder / "000002.tar").stat().st_ino,
    )


def test_stricter_settings_ask_for_nothing(table, tmp_path):
    folder = tmp_path / "images"
    fetch(table, folder, lambda n: Answer("too_large") if n == 1 else stored(n))
    assert fetch(table, folder, max_mb=1.0, max_pixels=100, max_redirects=0)[0] == []


def test_interrupted_it_goes_on_and_asks_once(table, tmp_path):
    folder = tmp_path / "images"
    fetch(table, folder, lambda _: Answer("too_large"), max_mb=1.0)
    asked = []
    for _ in range(6):
        found, ended = fetch(table, folder, most=3, max_mb=2.0)
        asked += found
        if ended:
            break
    assert sorted(asked) == [*range(COUNT)]
    assert ended == {"stored": COUNT}


def test_begun_shards_are_looked_at_as_well(table, tmp_path):
    folder = tmp_path / "images"
    assert fetch(table, folder, lambda _: Answer("too_large"), most=3, max_mb=1.0)[1] is None
    assert fetch(table, folder, max_mb=2.0) == ([*range(COUNT)], {"stored": COUNT})


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", ["hosts", "urls", "md5", "sha256"])
def test_who_opts_out_later_is_not_kept(tmp_path, kind, begun):
    """Nothing is asked for, and only the shards concerned are written again."""
    rows = [f"http://{'a' if n in (1, 2) else 'b'}.test/{n}.jpg\ta {n}\n" for n in range(COUNT)]
    (tmp_path / "t.tsv").write_text("".join(rows))
    table, folder = tmp_path / "t.tsv", tmp_path / "images"
    fetch(table, folder, most=3 if begun else COUNT)
    inode = None if begun else (folder / "000001.tar").stat().st_ino
    lines = {
        "hosts": ["a.test"],
        "urls": ["http://a.test/1.jpg", "http://a.test/2.jpg"],
        "md5": [hashlib.md5(picture_of(n)).hexdigest() for n in (1, 2)],
        "sha256": [hashlib.sha256(picture_of(n)).hexdigest() for n in (1, 2)],
    }
    key = f"opt_out_{'hashes' if kind in ('md5', 'sha256') else kind}"
    how = {key: write_list(tmp_path / "list", *lines[kind])}
    asked, ended = fetch(table, folder, **how)
    assert asked == ([*range(3, COUNT)] if begun else [])
    assert ended == {"stored": 8, "opted_out": 2}
    assert states(folder)[:4] == ["stored", "opted_out", "opted_out", "stored"]
    assert picture_of(1) not in (folder / "000000.tar").read_bytes()
    found = [each.location for each in readers.read(config_of(table, folder)).candidates()]
    assert found[1] == found[2] == "/not-fetched/opted_out"
    if inode:
        assert (folder / "000001.tar").stat().st_ino == inode
    write_list(tmp_path / "list", *lines[kind], *lines[kind][:1])  # it grows, and says nothing new
    assert fetch(table, folder, **how) == ([], ended)
    assert fetch(table, folder) == ([1, 2], {"stored": COUNT})  # without the list


@pytest.mark.parametrize("how", ["hashes", "verify"])
def test_hashes_that_are_typed_later_are_compared_with_what_is_there(table, tmp_path, how):
    folder = tmp_path / "images"
    lines = [f"http://x/{n}.jpg\t{hashlib.sha256(picture_of(n)).hexdigest()}" for n in range(5)]
    lines += [f"http://x/5.jpg\t{hashlib.md5(b'another').hexdigest()}"]
    hashes = write_list(tmp_path / "hashes", *lines)
    fetch(table, folder, **({"hashes": hashes, "verify": False} if how == "verify" else {}))
    assert fetch(table, folder, hashes=hashes) == ([], {"stored": 9, "changed": 1})
    assert states(folder)[5] == "changed"
    assert fetch(table, folder, verify=False)[0] == [5]


def test_a_list_in_another_file_with_the_same_lines_is_the_same(table, tmp_path):
    folder = tmp_path / "images"
    for name in ("one", "two"):
        fetch(table, folder, opt_out_hosts=write_list(tmp_path / name, "a.test"))
    assert len(json.loads((folder / FILE).read_text())["settings"]) == 1


def test_what_was_opted_out_by_its_hash_is_not_fetched_to_look_again(table, tmp_path):
    folder, path = tmp_path / "images", tmp_path / "list"
    digest = hashlib.sha256(picture_of(1)).hexdigest()
    how = {"opt_out_hashes": write_list(path, digest)}
    assert fetch(table, folder, **how)[1] == {"stored": 9, "opted_out": 1}
    assert LISTED in pq.read_table(folder / "000000.parquet")["error_message"][1].as_py()
    write_list(path, digest, "0" * 64)
    assert fetch(table, folder, **how)[0] == []


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"opt_out_hosts": "none"}, UserError),
        ({"opt_out_hashes": "bad"}, UserError),
        ({"hashes": "none"}, FileNotFoundError),
        ({"hashes": "bad"}, UserError),
    ],
)
def test_files_that_cannot_be_used_are_found_before_anything_is_written(
    table, tmp_path, settings, error
):
    write_list(tmp_path / "bad", "no entry of any kind")
    settings = {name: str(tmp_path / file) for name, file in settings.items()}
    with pytest.raises(error, match=r"fetch\."):
        fetch(table, tmp_path / "images", **settings)
    assert not (tmp_path / "images").exists()
