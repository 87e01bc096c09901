"""A journal keeps every whole record, whatever is cut off or damaged behind it."""

import errno
import os
import random
from itertools import pairwise

import pytest

from curate.fetch.journal import Journal, encoded, places

RECORDS = [({"index": 4, "state": "stored"}, b"abc"), ({"index": 2, "state": "timeout"}, b"")]
RECORDS += [({"index": 9, "state": "stored", "url": "http://x/ü"}, bytes(range(256)))]


def every(meta):
    return True


def read(path):
    data = path.read_bytes()
    return [(p.meta, data[p.offset : p.offset + p.size]) for p in places(path)]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / ".fetch/000000.journal", every)
    for record in RECORDS:
        journal.append(*record)
    assert journal.indices == {4, 2, 9}
    journal.close()
    return journal.path


def test_what_was_appended_is_read_in_its_order(path):
    assert read(path) == RECORDS
    journal = Journal(path, every)
    assert journal.indices == {4, 2, 9}
    journal.append({"index": 0}, b"more")
    assert read(path) == [*RECORDS, ({"index": 0}, b"more")]


def test_cut_off_at_any_byte_of_the_last_record_it_has_those_before(path):
    whole = path.read_bytes()
    last = len(encoded(*RECORDS[-1]))
    for end in range(len(whole) - last, len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, every)
        assert journal.indices == {4, 2}
        assert path.read_bytes() == whole[:-last]
        journal.append(*RECORDS[-1])
        journal.close()
        assert path.read_bytes() == whole


def test_a_damaged_byte_ends_it_before_that_record(path):
    whole = path.read_bytes()
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + len(encoded(*record)))
    for start, end in pairwise(ends):
        for at in random.Random(0).sample(range(start, end), 12):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            assert Journal(path, every).size == start
            assert path.read_bytes() == whole[:start]


def test_zeros_behind_the_end_as_a_power_failure_leaves_them_are_cut_off(path):
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(100))
    assert Journal(path, every).indices == {4, 2, 9}
    assert path.read_bytes() == whole


def test_of_several_answers_to_a_row_the_last_counts(path):
    journal = Journal(path, lambda meta: meta["state"] == "stored")
    assert journal.indices == {4, 9}
    journal.append({"index": 2, "state": "stored"}, b"now")
    journal.append({"index": 4, "state": "timeout"}, b"")
    journal.close()
    assert Journal(path, lambda meta: meta["state"] == "stored").indices == {2, 9}


def test_a_record_that_the_disk_has_no_room_for_is_taken_back(path, monkeypatch):
    whole, write, calls = path.read_bytes(), os.write, []

    def full(file, data):
        calls.append(data)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:7])

    journal = Journal(path, every)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space") as said:
            journal.append({"index": 0}, b"more")
    assert said.value.filename == str(path)
    assert path.read_bytes() == whole
    journal.append({"index": 0}, b"more")
    assert read(path)[-1] == ({"index": 0}, b"more")


@pytest.mark.parametrize(
    "url", ["data:image/png;base64," + "A" * 1_200_000, "http://x/" + "\u732b" * 400_000]
)
def test_a_long_address_or_caption_is_no_damage(tmp_path, url):
    records = [
        ({"index": 0, "url": url, "caption": "\u732b" * 700_000}, b"abc"),
        ({"index": 1}, b""),
    ]
    path = tmp_path / "000000.journal"
    journal = Journal(path, every)
    for record in records:
        journal.append(*record)
    journal.close()
    assert read(path) == records
    assert Journal(path, every).indices == {0, 1}
