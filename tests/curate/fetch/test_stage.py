"""A table through the whole of the stage against a server that misbehaves: every row ends in its one state."""

import asyncio
import errno
from collections import Counter
from dataclasses import replace
from time import monotonic

import pyarrow.parquet as pq
import pytest

from curate import readers
from curate.fetch import hosts, shards, stage
from curate.fetch.config import FetchConfig
from curate.measures.not_fetched import error_of
from curate.measures.unreadable import UnreadableImage
from curate.readers.tables import TableConfig
from curate.run.schema import UserError
from tests.curate.fetch import addresses_to_ask, misbehaving

COUNT = 160


def write_table(path, rows):
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{url}\ta caption, {number}\n" for number, (url, _) in enumerate(rows))
    return path


def dataset_of(path, folder):
    return TableConfig(
        **{
            "name": "web",
            "reader": "table",
            "path": str(path),
            "images_dir": folder and str(folder),
        },
        **{"columns": ["url", "caption"], "quotes": False},
    )


def fetch_of(**options):
    """Quick, and with no break for a host of which many addresses are bad."""
    known = {"enabled": True, "contact": "test@example.org", "host_rate": None, "retries": 1}
    known |= {
        "retry_wait_s": 0.01,
        "max_wait_s": 0.2,
        "stall_s": 1.0,
        "connect_s": 2.0,
        "max_mb": 1.0,
    }
    known |= {"allow_networks": ["127.0.0.0/8"], "rows_per_shard": 60, "host_connections": 64}
    return FetchConfig(**(known | options))


def test_every_row_ends_in_its_state_and_is_found_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hosts, "REST_S", 0.1)  # of a host that failed several times in a row
    with misbehaving.in_thread() as server:
        expected = addresses_to_ask.table(server.base, COUNT, bad=0.25, slow=0)
        table = write_table(tmp_path / "t.tsv", expected)
        dataset = dataset_of(table, tmp_path / "images")
        states = stage.run(dataset, fetch_of())
        asked = dict(server.asked)
        assert stage.run(dataset, fetch_of()) == states
        assert server.asked == asked
    assert "about 160 are to be asked for" in capsys.readouterr().out
    tables = [pq.read_table(tmp_path / f"images/{number:06d}.parquet") for number in range(3)]
    rows = [row for table in tables for row in table.to_pylist()]
    found = [(row["url"], row["state"]) for row in rows]
    assert {pair for pair in found if pair not in {*expected}} == set()
    assert found == expected
    assert states == Counter(state for _, state in expected)
    source = readers.read(dataset)
    for candidate, (_, state) in zip(source.candidates(), expected, strict=True):
        if state == "stored":
            source.load(candidate.location)
            continue
        with pytest.raises(UnreadableImage) as error:
            source.load(candidate.location)
        assert error.value.reason == error_of(state)


def test_a_picture_that_is_another_than_the_table_s_hash_is_not_kept(tmp_path):
    with misbehaving.in_thread() as server:
        table = tmp_path / "t.tsv"
        table.write_text(f"{server.base}/ok/1.jpg\ta\n{server.base}/ok/2.jpg\tb\n")
        (tmp_path / "hashes").write_text(f"{server.base}/ok/2.jpg\t{'0' * 64}\n")
        dataset = dataset_of(table, tmp_path / "images")
        states = stage.run(dataset, fetch_of(hashes=str(tmp_path / "hashes")))
    assert states == {"stored": 1, "changed": 1}


@pytest.mark.parametrize(("verify", "state"), [(True, "changed"), (False, "stored")])
def test_hashes_of_the_table_count_unless_none_are_asked_for(tmp_path, verify, state):
    with misbehaving.in_thread() as server:
        lines = [f"{server.base}/ok/1.jpg\ta\t{'0' * 64}\n", f"{server.base}/ok/2.jpg\tb\t\n"]
        (tmp_path / "t.tsv").write_text("".join(lines))
        (tmp_path / "hashes").write_text(f"{server.base}/ok/2.jpg\t{'0' * 64}\n")
        dataset = dataset_of(tmp_path / "t.tsv", tmp_path / "images")
        dataset = replace(dataset, columns=["url", "caption", "sha256"])
        states = stage.run(dataset, fetch_of(hashes=str(tmp_path / "hashes"), verify=verify))
    assert states == {state: 2}


def test_rows_without_a_request_are_told_of(tmp_path, capsys):
    with misbehaving.in_thread() as server:
        (tmp_path / "t.tsv").write_text(f"{server.base}/ok/1.jpg\ta\n\tb\n\tc\n")
        dataset = dataset_of(tmp_path / "t.tsv", tmp_path / "images")
        assert stage.run(dataset, fetch_of()) == {"stored": 1}
    assert "note: rows not fetched, without an address: 2" in capsys.readouterr().out


def test_what_redirects_lead_to_counts_for_the_rate_of_its_host(tmp_path):
    with misbehaving.in_thread() as server:
        rows = [(f"{server.base}/hops/1/{n}", "stored") for n in range(10)]
        dataset = dataset_of(write_table(tmp_path / "t.tsv", rows), tmp_path / "images")
        began = monotonic()
        assert stage.run(dataset, fetch_of(host_rate=20.0, robots=False)) == {"stored": 10}
        assert monotonic() - began >= 19 / 20


def test_a_folder_has_to_be_named(tmp_path):
    with pytest.raises(UserError, match=r"type dataset\.images_dir=FOLDER"):
        stage.run(dataset_of(tmp_path / "t.tsv", None), fetch_of())


def test_a_full_disk_ends_with_what_to_do_and_no_request_is_under_way(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "there")

    monkeypatch.setattr(shards, "_write_table", full)
    with misbehaving.in_thread() as server:
        table = write_table(
            tmp_path / "t.tsv", [(f"{server.base}/ok/{n}.jpg", "") for n in range(9)]
        )
        with pytest.raises(UserError, match=r"there: No space left on device\. Every answer so"):
            stage.run(dataset_of(table, tmp_path / "images"), fetch_of(rows_per_shard=2))
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
