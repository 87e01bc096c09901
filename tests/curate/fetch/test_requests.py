"""Rows become requests in their order, numbered through all files, with the hashes that are known."""

import bz2
import gzip
import hashlib
import random

import pandas as pd
import pytest

from curate.fetch import hashes
from curate.fetch.config import FetchConfig
from curate.fetch.hashes import Hashes
from curate.fetch.requests import Size, about, requests, rows_about
from curate.readers.tables import TableConfig
from curate.readers.tables.entries import find
from curate.run.schema import UserError

MD5, SHA256 = (hashlib.new(name, b"x").hexdigest() for name in ("md5", "sha256"))


def asked(path, notes=None, fetch=None, **options):
    config = TableConfig(name="web", reader="table", path=str(path), **options)
    fetch = fetch or FetchConfig(rows_per_shard=3)
    return [*requests(config, fetch, find(config, []), [] if notes is None else notes)]


def sized(path, **options):
    config = TableConfig(name="web", reader="table", path=str(path), **options)
    tables = find(config, [])
    return about(config, tables), rows_about(config, tables)


def write(path, **columns):
    table = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t")
    return path


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_rows_are_numbered_through_all_files(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", url=[f"u{n}" for n in range(4)], text=list("abcd"))
    write(tmp_path / f"b.{suffix}", url=["u4", "u5"], text=list("ef"))
    found = asked(tmp_path)
    assert [(r.shard, r.index, r.url, r.caption) for r in found] == [
        *((0, 0, "u0", "a"), (0, 1, "u1", "b"), (0, 2, "u2", "c")),
        *((1, 0, "u3", "d"), (1, 1, "u4", "e"), (1, 2, "u5", "f")),
    ]
    assert len({r.row for r in found}) == 6
    assert [r.row for r in asked(tmp_path / f"a.{suffix}")] == [r.row for r in found[:4]]
    assert sized(tmp_path) == (Size(6, 180_000, is_by_pixels=False), 6)


def test_rows_that_are_left_out_or_have_no_address_keep_their_numbers(tmp_path):
    path = write(
        tmp_path / "t.tsv", url=["u0", None, "u2", "u3"], text=list("abcd"), kind=list("xxyx")
    )
    notes = []
    assert [(r.shard, r.index) for r in asked(path, notes, leave_out={"kind": "y"})] == [
        (0, 0),
        (1, 0),
    ]
    assert notes == [
        "rows not fetched, without an address: 1, such as t.tsv:3",
        "rows not fetched, kind y: 1, such as t.tsv:4",
    ]


def test_what_is_chosen_of_the_data_set_is_asked_for_and_no_more(tmp_path):
    path = write(tmp_path / "t.tsv", url=[f"u{n}" for n in range(40)], text=["a"] * 40)
    every = asked(path)
    assert asked(path, limit=5) == every[:5]
    parts = [asked(path, shard=f"{number}/3") for number in range(3)]
    assert all(parts)
    assert sorted([r.url for part in parts for r in part]) == sorted(r.url for r in every)
    assert asked(path, sample=0.3, limit=2) == asked(path, sample=0.3)[:2]
    assert sized(path, limit=5)[1] == 5
    assert sized(path, sample=0.3)[1] is None


@pytest.mark.parametrize("opened", [gzip.open, bz2.open])
def test_lines_of_a_large_compressed_table_are_estimated_from_its_beginning(
    tmp_path, monkeypatch, opened
):
    draw = random.Random(0)
    path = tmp_path / f"t.tsv.{'gz' if opened is gzip.open else 'bz2'}"
    with opened(path, "wt", compresslevel=1) as file:
        file.write("url\ttext\n")
        file.writelines(f"http://x/{draw.getrandbits(200)}.jpg\ta\n" for _ in range(20_000))
    assert sized(path)[1] == 20_000
    monkeypatch.setattr("curate.fetch.requests._HEAD_BYTES", path.stat().st_size // 3)
    _, rows = sized(path, limit=10**6)
    assert rows == pytest.approx(20_000, rel=0.5)
    assert rows != 20_000


def test_of_many_rows_the_first_stand_for_all(tmp_path):
    kinds = ["x", "x", "x", "y"] * 1500
    path = write(tmp_path / "t.tsv", url=["u"] * 6000, text=["a"] * 6000, kind=kinds)
    found, rows = sized(path, leave_out={"kind": "y"})
    assert rows == 6000
    assert found.requests == pytest.approx(4500, rel=0.01)
    assert sized(path, limit=2000)[0].requests == 2000


def test_a_table_without_addresses_is_refused(tmp_path):
    path = write(tmp_path / "t.tsv", file_name=["a.jpg"], text=["a"])
    with pytest.raises(UserError, match=r"columns file_name, text.*dataset\.url_column=NAME"):
        asked(path)
    with pytest.raises(UserError, match="columns file_name"):
        sized(path)


def test_the_size_follows_what_the_table_says_of_the_pictures(tmp_path):
    path = write(
        tmp_path / "t.parquet",
        **{"url": list("abcd"), "text": list("abcd")},
        **{"width": [1000, 200, None, 0], "height": [1000, 300, None, 9]},
    )
    assert sized(path)[0] == Size(4, int(0.25 * 1_060_000 / 2 * 4), is_by_pixels=True)


# ---- hashes


def test_hashes_of_the_table_are_taken_and_others_are_none(tmp_path):
    path = write(
        tmp_path / "t.tsv",
        **{"url": list("abc"), "text": list("abc")},
        **{"md5": [MD5.upper(), "none", None], "sha256": [None, SHA256, MD5]},
    )
    found = asked(path)
    assert [(r.md5, r.sha256) for r in found] == [(MD5, ""), ("", SHA256), (MD5, "")]
    fetch = FetchConfig(verify=False)
    assert {(r.md5, r.sha256) for r in asked(path, fetch=fetch)} == {("", "")}


def test_hashes_of_a_file_are_found_by_address(tmp_path):
    lines = ["url\tsha256\tmd5", f"u0\t{SHA256}\t{MD5}", f"u1\t{MD5}", "u2\tnothing"]
    lines += [f"u3\t{SHA256}", f"u3\t{'0' * 64}", f"u4\t{SHA256}", f"u4\t{SHA256}"]
    (tmp_path / "h.tsv").write_text("\n".join(lines) + "\n")
    path = write(tmp_path / "t.tsv", url=[f"u{n}" for n in range(6)], text=["a"] * 6)
    fetch = FetchConfig(hashes=str(tmp_path / "h.tsv"))
    assert [(r.md5, r.sha256) for r in asked(path, fetch=fetch)] == [
        *((MD5, SHA256), (MD5, ""), ("", ""), ("", ""), ("", SHA256), ("", "")),
    ]


def test_a_file_without_hashes_is_refused(tmp_path):
    (tmp_path / "h.tsv").write_text("u0\tnothing\n")
    with (
        pytest.raises(UserError, match=r"type fetch\.hashes=null"),
        hashes.opened(tmp_path / "h.tsv"),
    ):
        pass
    with pytest.raises(FileNotFoundError, match="was not found"), hashes.opened(tmp_path / "no"):
        pass


def test_hashes_are_known_by_their_form():
    assert hashes.hashes_in("x", SHA256, MD5) == Hashes(MD5, SHA256)
    assert hashes.hashes_in(f"{MD5}0", "") == hashes.NONE
