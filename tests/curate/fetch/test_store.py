"""The store: shards in img2dataset's layout, equal bytes for equal answers, and folders that are gone on with."""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.fetch import disk, shards, store
from curate.fetch.answer import Answer, Request
from curate.fetch.config import FetchConfig
from curate.fetch.requests import requests
from curate.fetch.shard_files import ShardFiles, key_of
from curate.readers.tables import TableConfig
from curate.readers.tables.entries import find
from curate.run.locks import locked
from curate.run.schema import Busy, UserError

ROWS = 4  # of a shard


def picture(number, kind="JPEG"):
    stream = io.BytesIO()
    Image.new("RGB", (8, 4), (number * 9 % 256, 60, 200)).save(stream, kind)
    return stream.getvalue()


def answer_to(number):
    """Of every four rows two have a picture, one is gone and one may come another time."""
    if number % 4 == 1:
        return Answer("not_found", http_status=404)
    if number % 4 == 2:
        return Answer("timeout", "no byte in time")
    kind = ("JPEG", "jpg") if number % 8 else ("PNG", "png")
    return Answer("stored", "", picture(number, kind[0]), kind[1], 8, 4, 200)


def write_table(path, count, start=0):
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"http://x/{n}.jpg\ta caption, {n}\n" for n in range(start, count))
    return path


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "t.tsv", 10)


def config_of(path, folder, **options):
    options = {"columns": ["url", "caption"], "quotes": False, **options}
    return TableConfig(
        name="web", reader="table", path=str(path), images_dir=str(folder), **options
    )


def fetch(
    path,
    folder,
    answers=answer_to,
    most=10**9,
    again=False,
    order=list,
    rows=ROWS,
    asked=None,
    **options,
):
    """Fetch a table without a network; the numbers of the rows that were asked for, and the states."""
    config = config_of(path, folder, **options)
    tables, asked, before = find(config, []), [] if asked is None else asked, len(asked or [])
    with store.opened(folder, config, tables, rows, again) as kept:
        every = requests(config, FetchConfig(rows_per_shard=rows), tables, [])
        pending = [each for each in every if kept.pending(each)]
        for request in order(pending)[:most]:
            number = int(request.url.rpartition("/")[2].removesuffix(".jpg"))
            asked.append(number)
            kept.put(request, answers(number))
        return asked, (dict(kept.finish()) if len(asked) - before == len(pending) else None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


STATES = {"stored": 5, "not_found": 3, "timeout": 2}


# ---- what a shard holds


def test_shards_have_what_img2dataset_writes(table, tmp_path):
    asked, states = fetch(table, tmp_path / "images")
    assert asked == [*range(10)]
    assert states == STATES
    files = ShardFiles(tmp_path / "images", 0)
    assert [files.tar.name, files.table.name, files.stats.name] == [
        *("000000.tar", "000000.parquet", "000000_stats.json")
    ]
    with tarfile.open(files.tar) as tar:
        members = tar.getmembers()
        texts = {each.name: tar.extractfile(each).read() for each in members}
    assert [*texts] == [
        *("0000000.json", "0000000.png", "0000000.txt"),
        *("0000003.jpg", "0000003.json", "0000003.txt"),
    ]
    assert {(each.mtime, each.uid, each.gid) for each in members} == {(0, 0, 0)}
    assert texts["0000003.jpg"] == picture(3)
    assert texts["0000003.txt"] == b"a caption, 3"
    rows = pq.read_table(files.table).to_pylist()
    md5, sha256 = (hashlib.new(name, picture(3)).hexdigest() for name in ("md5", "sha256"))
    known = {
        **{"key": "0000003", "url": "http://x/3.jpg", "caption": "a caption, 3"},
        **{"status": "success", "error_message": None, "width": 8, "height": 4},
        **{"original_width": 8, "original_height": 4, "sha256": sha256, "md5": md5},
        "row": rows[3]["row"],
    }
    assert json.loads(texts["0000003.json"]) == known
    assert rows[3] == known | {"state": "stored", "http_status": 200, "settings": 0}
    assert len({row["row"] for row in rows}) == 4
    assert [row["state"] for row in rows] == ["stored", "not_found", "timeout", "stored"]
    assert rows[1]["status"] == "failed_to_download"
    assert rows[1]["error_message"] == "nothing is there (404, 410)"
    assert rows[2]["error_message"] == "no whole answer in time: no byte in time"
    assert rows[2]["width"] is None
    stats = json.loads(files.stats.read_text())
    assert stats["status_dict"] == {"success": 2, "not_found": 1, "timeout": 1}
    assert (stats["count"], stats["successes"], stats["failed_to_download"]) == (4, 2, 2)
    assert stats["tar_sha256"] == hashlib.sha256(files.tar.read_bytes()).hexdigest()
    assert not [*files.work.iterdir()]


@pytest.mark.parametrize(
    ("rows", "key"), [(10_000, "0000030042"), (10_001, "00000300042"), (100, "00000342")]
)
def test_keys_are_those_of_img2dataset(rows, key):
    assert key_of(3, 42, rows) == key


def test_one_row_a_shard_and_a_shard_without_pictures(table, tmp_path):
    _, states = fetch(table, tmp_path / "images", rows=1)
    assert states == STATES
    with tarfile.open(tmp_path / "images/000001.tar") as tar:
        assert tar.getnames() == []


# ---- going on


def test_answers_in_any_order_and_after_any_stop_give_the_same_bytes(table, tmp_path):
    fetch(table, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    fetch(table, tmp_path / "backwards", order=lambda rows: rows[::-1])
    assert contents(tmp_path / "backwards") == expected
    asked = []
    for most in (1, 2, 0, 4):
        some, states = fetch(table, tmp_path / "stopped", most=most, order=lambda rows: rows[::-1])
        assert states is None
        asked += some
    rest, states = fetch(table, tmp_path / "stopped")
    assert sorted([*asked, *rest]) == [*range(10)]
    assert states == STATES
    assert contents(tmp_path / "stopped") == expected
    assert fetch(table, tmp_path / "stopped") == ([], STATES)
    assert contents(tmp_path / "stopped") == expected


@contextmanager
def ending_after(steps, monkeypatch):
    """Nothing is renamed or deleted any more after so many times; gives what is left of them."""
    left = [steps]

    def limited(call):
        def step(*arguments, **named):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return call(*arguments, **named)

        return step

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, limited(getattr(Path, name)))
        yield left


@pytest.mark.parametrize("again", [False, True])
def test_killed_between_any_two_steps_of_writing_shards_nothing_is_lost(
    tmp_path, monkeypatch, again
):
    table = write_table(tmp_path / "short.tsv", 5)
    fetch(table, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    for steps in range(60):
        folder, asked = tmp_path / str(steps), []
        if again:
            fetch(table, folder)
        with ending_after(steps, monkeypatch) as left:
            fetch(table, folder, again=again, asked=asked)
        if left[0]:
            break
        if again:
            assert contents(folder).keys() == expected.keys()
        else:
            shown = [int(path.name[:6]) for path in folder.glob("*_stats.json")]
            assert all(ShardFiles(folder, number).finished() for number in shown)
        _, states = fetch(table, folder, again=again, asked=asked)
        assert states == {"stored": 3, "not_found": 1, "timeout": 1}
        assert again or sorted(asked) == [*range(5)]
        assert contents(folder) == expected
        assert not [*(folder / ".fetch").iterdir()]
    assert steps > 10


def test_a_shard_whose_files_are_not_as_written_is_fetched_again(table, tmp_path):
    fetch(table, tmp_path / "images")
    expected = contents(tmp_path / "images")
    (tmp_path / "images/000001.tar").write_bytes(b"")
    asked, _ = fetch(table, tmp_path / "images")
    assert asked == [4, 5, 6, 7]
    assert contents(tmp_path / "images") == expected


def test_what_may_pass_is_asked_again_and_nothing_else(table, tmp_path):
    fetch(table, tmp_path / "images")
    before = contents(tmp_path / "images")
    later = {2: answer_to(3), 6: Answer("rate_limited", http_status=429)}
    asked, states = fetch(table, tmp_path / "images", later.__getitem__, again=True)
    assert asked == [2, 6]
    assert states == {"stored": 6, "not_found": 3, "rate_limited": 1}
    now = contents(tmp_path / "images")
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {
        *("000000.tar", "000000.parquet", "000000_stats.json"),
        *("000001.parquet", "000001_stats.json"),
    }
    answers = {**{n: answer_to(n) for n in range(10)}, **later}
    fetch(table, tmp_path / "at once", answers.__getitem__)
    assert contents(tmp_path / "at once") == now
    asked, _ = fetch(table, tmp_path / "images", again=True)
    assert asked == [6]


def test_asking_again_leaves_what_was_not_fetched_yet(table, tmp_path):
    fetch(table, tmp_path / "images", most=7)
    begun = (tmp_path / "images/.fetch/000001.journal").read_bytes()
    asked, states = fetch(table, tmp_path / "images", lambda _: answer_to(3), again=True)
    assert asked == [2]
    assert states == {"stored": 3, "not_found": 1}
    assert (tmp_path / "images/.fetch/000001.journal").read_bytes() == begun
    asked, _ = fetch(table, tmp_path / "images")
    assert asked == [7, 8, 9]
    write_table(table, 12, 10)
    asked, _ = fetch(table, tmp_path / "images", again=True)
    assert asked == [6]


def test_asking_again_and_stopped_the_old_shard_stays_until_the_new_one_is_whole(table, tmp_path):
    fetch(table, tmp_path / "images", lambda n: Answer("timeout") if n < 4 else answer_to(n))
    before = contents(tmp_path / "images")
    asked, _ = fetch(table, tmp_path / "images", again=True, most=2)
    assert asked == [0, 1]
    assert contents(tmp_path / "images") == before
    asked, states = fetch(table, tmp_path / "images")  # without asking again, it goes on with that
    assert asked == [2, 3, 6]
    assert states == STATES


def test_pictures_are_kept_where_the_disk_has_no_hard_links(table, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    fetch(table, tmp_path / "images")
    expected = contents(tmp_path / "images")
    monkeypatch.setattr(os, "link", refuse)
    fetch(table, tmp_path / "images", again=True)
    assert contents(tmp_path / "images") == expected


def test_a_damaged_picture_is_not_carried_into_the_new_shard(table, tmp_path):
    fetch(table, tmp_path / "images")
    tar = tmp_path / "images/000000.tar"
    data = tar.read_bytes()
    at = data.index(picture(3)) + 40
    tar.write_bytes(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(UserError, match=r"000000\.tar is damaged.*rm -f .*000000_stats\.json"):
        fetch(table, tmp_path / "images", again=True)


# ---- a table that has changed


def test_a_table_may_grow_at_its_end_and_by_files_behind_the_others(table, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    table = shutil.move(table, folder / "a.tsv")
    fetch(folder, tmp_path / "images")
    write_table(table, 13, 10)
    asked, states = fetch(folder, tmp_path / "images")
    assert asked == [10, 11, 12]
    assert sum(states.values()) == 13
    write_table(folder / "b.tsv", 15, 13)
    asked, _ = fetch(folder, tmp_path / "images")
    assert asked == [13, 14]
    fetch(folder, tmp_path / "at once")
    assert contents(tmp_path / "at once") == contents(tmp_path / "images")
    whole = table.read_text()
    write_table(table, 99, 98)
    with pytest.raises(UserError, match=r"a\.tsv is not as it was \(it has changed\)"):
        fetch(folder, tmp_path / "images")
    table.write_text(whole)
    write_table(folder / "0.tsv", 17, 15)
    with pytest.raises(UserError, match=r"a\.tsv is not as it was \(0\.tsv is in its place\)"):
        fetch(folder, tmp_path / "images")


def test_another_table_is_refused(table, tmp_path):
    fetch(table, tmp_path / "images")
    text = table.read_text()
    for changed, said in (
        (
            text.replace("/3.jpg", "/7.jpg"),
            r"t\.tsv is not as it was \(it has changed\).*images_dir=",
        ),
        (text[:-20], "it has changed"),
        (text.replace("/3.jpg", "/7.jpg") + "http://x/11.jpg\tb\n", "it has changed"),
    ):
        table.write_text(changed)
        with pytest.raises(UserError, match=said):
            fetch(table, tmp_path / "images")
    table.write_text(text)
    with pytest.raises(UserError, match=r"type fetch\.rows_per_shard=4"):
        fetch(table, tmp_path / "images", rows=5)
    with pytest.raises(UserError, match=r"fetched with dataset\.url_encoded=false, and it is true"):
        fetch(table, tmp_path / "images", url_encoded=True)
    (tmp_path / "images/fetch.json").unlink()
    with pytest.raises(UserError, match=r"000000\.parquet and no fetch\.json"):
        fetch(table, tmp_path / "images")
    (tmp_path / "images/fetch.json").write_text("{}")
    with pytest.raises(UserError, match=r"fetch\.json is damaged"):
        fetch(table, tmp_path / "images")


def test_a_last_line_without_an_end_that_was_written_on_is_another_row(table, tmp_path):
    table.write_text(table.read_text()[:-1])
    fetch(table, tmp_path / "images")
    table.write_text(table.read_text() + "0\nhttp://x/11.jpg\tb\n")
    with pytest.raises(UserError, match="it has changed"):
        fetch(table, tmp_path / "images")


@pytest.mark.parametrize("options", [{"limit": 3}, {"sample": 0.4}, {"shard": "0/2"}])
def test_a_part_of_the_data_set_is_fetched_first_and_the_rest_later(table, tmp_path, options):
    first, _ = fetch(table, tmp_path / "images", **options)
    assert 0 < len(first) < 10
    rest, states = fetch(table, tmp_path / "images")
    assert sorted([*first, *rest]) == [*range(10)]
    assert states == STATES
    fetch(table, tmp_path / "whole")
    assert contents(tmp_path / "images") == contents(tmp_path / "whole")


# ---- what else may go wrong


def test_two_processes_do_not_fetch_into_one_folder(table, tmp_path):
    with locked(tmp_path / "images"), pytest.raises(Busy, match=r"another dataset\.images_dir"):
        fetch(table, tmp_path / "images")


def test_a_full_disk_is_told_and_loses_no_answer(table, tmp_path, monkeypatch):
    fetch(table, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "_LOOK_BYTES", 1)
        usage = [shutil.disk_usage(tmp_path)] * 3 + [shutil.disk_usage(tmp_path)._replace(free=9)]
        patch.setattr(shutil, "disk_usage", lambda _: usage.pop(0))
        with pytest.raises(OSError, match="No space left") as said:
            fetch(table, tmp_path / "images")
        assert said.value.filename == str(tmp_path / "images")
    asked, _ = fetch(table, tmp_path / "images")
    assert asked == [7, 8, 9]
    assert contents(tmp_path / "images") == contents(tmp_path / "whole")


def test_answers_are_brought_to_the_disk_now_and_then(table, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk, "_SYNC_S", -1)
    monkeypatch.setattr(disk, "sync", synced.append)
    fetch(table, tmp_path / "images")
    assert tmp_path / "images/.fetch/000000.journal" in synced


def test_what_fails_while_a_shard_is_written_stops_the_fetch(table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_write_table", full)
        with pytest.raises(OSError, match="No space left"):
            fetch(table, tmp_path / "images")
    asked, _ = fetch(table, tmp_path / "images")
    assert len(asked) < 10 - ROWS + 1


def test_rows_without_an_answer_at_the_end_are_a_fault(tmp_path):
    kept = store.Store(tmp_path, ROWS)
    assert kept.pending(Request(0, 0, "u"))
    with pytest.raises(RuntimeError, match="1 rows have no answer"):
        kept.finish()
    kept.close()


def test_of_many_shards_that_are_begun_few_journals_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_MOST_OPEN", 2)
    table, most = write_table(tmp_path / "t.tsv", 40), []

    def answers(number):
        journals = [each for each in _open_files() if each.endswith(".journal")]
        most.append(len(journals))
        return answer_to(number)

    _, states = fetch(
        table, tmp_path / "images", answers, order=lambda rows: sorted(rows, key=lambda r: r.index)
    )
    assert sum(states.values()) == 40
    assert max(most) <= 4  # and one that is read, and made into a shard


def _open_files():
    for each in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # of this look itself
            yield str(each.readlink())


def test_captions_that_utf_8_cannot_express_are_kept_as_far_as_they_can(tmp_path):
    kept = store.Store(tmp_path, ROWS)
    request = Request(0, 0, "http://x/\ud800.jpg", "a \ud800 caption", "r")
    assert kept.pending(request)
    kept.put(request, replace(answer_to(3), error=""))
    kept.finish()
    kept.close()
    [row] = pq.read_table(tmp_path / "000000.parquet").to_pylist()
    assert row["caption"] == "a ? caption"


# ---- what is not as usual


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leave_out", {"kind": "y"}),
        ("url_column", "other"),
        ("columns", ["caption", "url", "kind", "other"]),
        ("quotes", True),
        ("encoding", "cp1252"),
        ("url_encoded", True),
        ("file_type", "tsv"),
    ],
)
def test_settings_by_which_rows_may_be_others_are_refused(tmp_path, name, value):
    table = tmp_path / "t.tsv"
    table.write_text("http://x/0.jpg\ta\tx\thttp://x/1.jpg\n")
    columns = {"columns": ["url", "caption", "kind", "other"]}
    fetch(table, tmp_path / "images", **columns)
    with pytest.raises(UserError, match=rf"was fetched with dataset\.{name}="):
        fetch(table, tmp_path / "images", **(columns | {name: value}))


def test_rows_with_very_long_texts_are_answered_like_others(tmp_path):
    """Of a record of a megabyte or more nothing is lost, nor of those behind it."""
    rows = ["http://x/0.jpg\ta", f"data:image/png;base64,{'A' * 1_200_000}/1.jpg\tb"]
    rows += [f"http://x/2.jpg\t{chr(0x732B) * 300_000}", "http://x/3.jpg\td"]
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    asked, states = fetch(tmp_path / "t.tsv", tmp_path / "images")
    assert (asked, sum(states.values())) == ([0, 1, 2, 3], 4)
    assert pq.read_metadata(tmp_path / "images/000000.parquet").num_rows == 4
    assert fetch(tmp_path / "t.tsv", tmp_path / "images") == ([], states)


def test_a_journal_that_lost_answers_makes_no_shard(table, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    fetch(table, folder, most=3)
    config = config_of(table, folder)
    tables = find(config, [])
    with store.opened(folder, config, tables, ROWS) as kept:
        pending = [
            each
            for each in requests(config, FetchConfig(rows_per_shard=ROWS), tables, [])
            if kept.pending(each)
        ]
        journal = ShardFiles(folder, 0).journal
        whole = journal.read_bytes()
        journal.write_bytes(whole[:-1])
        with pytest.raises(UserError, match=r"journal is damaged: \d of the 4 answers"):
            _answer_all(kept, pending)
    assert not ShardFiles(folder, 0).stats.exists()
    assert fetch(table, folder)[1]


def _answer_all(kept, pending):
    for request in pending:
        kept.put(request, Answer("not_found"))
    kept.finish()


def test_a_file_that_is_no_journal_is_left_alone(table, tmp_path):
    fetch(table, tmp_path / "images", most=3)
    stray = tmp_path / "images/.fetch/x.journal"
    stray.write_text("mine")
    assert fetch(table, tmp_path / "images")[1] == STATES
    assert stray.read_text() == "mine"


def test_before_any_answer_the_table_may_be_read_otherwise(table, tmp_path):
    folder = tmp_path / "images"
    config = config_of(table, folder, columns=["caption", "url"])
    with store.opened(folder, config, find(config, []), ROWS):
        pass
    fetch(table, folder)
    with pytest.raises(UserError, match=r"was fetched with dataset\.columns"):
        fetch(table, folder, columns=["caption", "url"])
