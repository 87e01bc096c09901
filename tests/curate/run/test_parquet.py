"""Tables carry their checksum: other readers do not mind, and any flipped bit is noticed."""

import hashlib
import os
from contextlib import suppress

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.run import parquet
from curate.run.parquet import checksum_in, digest_of, is_intact, reporting_damage, write_table
from curate.run.schema import UserError

TABLE = pa.table({"key": ["a", "b", "darkroom.sha256"], "value": [1.5, 2.5, None]})


def test_the_checksum_is_of_the_file_with_zeros_in_its_place(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE.replace_schema_metadata({"darkroom": "{}"}))
    content = path.read_bytes()
    said = checksum_in(path)
    assert said is not None
    assert content.count(said.encode()) == 1
    zeros = content.replace(said.encode(), b"0" * 64)
    assert hashlib.sha256(zeros).hexdigest() == said
    assert digest_of(path) == (said, said)
    assert pq.read_schema(path).metadata == {b"darkroom": b"{}"}
    pd.testing.assert_frame_equal(pd.read_parquet(path), TABLE.to_pandas())
    write_table(tmp_path / "b.parquet", TABLE.replace_schema_metadata({"darkroom": "{}"}))
    assert (tmp_path / "b.parquet").read_bytes() == content


def test_any_flipped_bit_is_noticed_or_leaves_the_table_as_it_was(tmp_path):
    write_table(tmp_path / "whole.parquet", TABLE)
    whole = (tmp_path / "whole.parquet").read_bytes()
    mark = whole.rindex(b"darkroom.sha256")
    unnoticed = []
    for bit in range(0, 8 * len(whole), 3):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path = tmp_path / f"{bit}.parquet"
        path.write_bytes(content)
        if is_intact(path):
            unnoticed.append(bit // 8)
            with suppress(OSError):  # then Arrow notices it
                assert pq.read_table(path).equals(TABLE)
    assert set(unnoticed) <= set(range(mark, mark + 17))  # the name under which the checksum stands


def test_the_damaged_among_many_are_found_and_each_is_read_once(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.parquet" for number in range(4)]
    for path in paths:
        write_table(path, TABLE)
        content = path.read_bytes()
        path.write_bytes(content.replace(b"PAR1", b"PAR2", 1) if path.stem in "13" else content)
        os.utime(path, ns=(10**9, 10**9))  # or the clock may not have moved since
    read = []
    monkeypatch.setattr(parquet, "digest_of", lambda path: read.append(path) or digest_of(path))
    assert parquet.check_ahead(paths) == [paths[1], paths[3]]
    assert sorted(read) == paths


def test_a_table_without_a_checksum_is_taken_as_it_is(tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(TABLE, path)
    assert checksum_in(path) is None
    assert is_intact(path)
    with reporting_damage(path, "never said"):
        assert pq.read_table(path).equals(TABLE)


def test_damage_is_said_with_what_to_do_and_a_mended_file_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    whole = path.read_bytes()
    time = path.stat().st_mtime_ns
    path.write_bytes(whole[:5] + bytes([whole[5] ^ 1]) + whole[6:])
    os.utime(path, ns=(time + 10**9, time + 10**9))  # or the clock may not have moved since
    with pytest.raises(UserError, match=r"a\.parquet is damaged .*; do this"):  # noqa: SIM117
        with reporting_damage(path, lambda: "do this"):
            pytest.fail("was read")
    write_table(path, TABLE)
    with reporting_damage(path, "never said"):
        pass
