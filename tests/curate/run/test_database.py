"""What a query reads is what was named, and what it lacks is said in words that help."""

import errno
import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.run.database import Limits, connect, parquet_files
from curate.run.engine.config import EngineConfig
from curate.run.memory import for_tables
from curate.run.schema import UserError

HASHES = "CREATE TABLE a AS SELECT hash(i) AS one, hash(i + 1) AS other FROM range(2000000) t(i)"


def ask(limits, *queries):
    with connect(limits) as connection:
        return [row for query in queries for row in connection.sql(query).fetchall()]


def test_a_query_that_needs_more_memory_names_the_setting(tmp_path):
    with pytest.raises(UserError, match=r"than the 5\.0 MB .*engine\.memory=SIZE"):
        ask(Limits(tmp_path / "scratch", 5_000_000), "SELECT list(i) FROM range(3000000) t(i)")


def test_a_command_without_settings_names_what_it_has(small_disk):
    limits = Limits.in_temporary(small_disk)
    assert limits.memory_bytes == for_tables()
    with pytest.raises(UserError, match="set TMPDIR") as refused:
        ask(replace(limits, memory_bytes=20_000_000), HASHES)
    assert str(small_disk) in str(refused.value)
    with pytest.raises(
        UserError, match=r"than the 5\.0 MB .*40 % of what the machine has"
    ) as refused:
        ask(replace(limits, memory_bytes=5_000_000), "SELECT list(i) FROM range(3000000) t(i)")
    assert "engine" not in str(refused.value)


def test_a_disk_that_a_setting_names_is_changed_by_it(small_disk, tmp_path):
    limits = EngineConfig(scratch=str(small_disk)).limits(tmp_path)
    with pytest.raises(UserError, match=rf"{small_disk}: No space.*type engine\.scratch=FOLDER"):
        ask(replace(limits, memory_bytes=20_000_000), HASHES)


@pytest.mark.parametrize("most", ["1MB", "1TB"])
def test_a_disk_that_queries_fill_is_a_full_disk(small_disk, most):
    limits = Limits(small_disk / "scratch", 20_000_000)
    with pytest.raises(OSError, match="No space") as refused:
        ask(limits, f"SET max_temp_directory_size='{most}'", HASHES)
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.filename == str(small_disk / "scratch")


def test_a_disk_that_is_not_scratch_is_named(small_disk, tmp_path):
    written = small_disk / "written.parquet"
    with pytest.raises(OSError, match="No space") as refused:
        ask(
            Limits(tmp_path / "scratch"),
            f"COPY (FROM ({HASHES.partition(' AS ')[2]})) TO '{written}'",
        )
    assert refused.value.errno == errno.ENOSPC
    assert str(written) in str(refused.value)
    assert "scratch" not in str(refused.value)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(duckdb.IOException):
        ask(Limits(tmp_path), "SELECT * FROM read_parquet('nowhere.parquet')")


NAMES = [
    *(("x[1]", "x1"), ("a*", "ab"), ("q?", "qz"), ("~x", "x")),
    *(("b\\c", "b/c"), ("b\\c[1]", "b/c1"), ("b\\*", "b/c"), ("s3:", "s3")),
]


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), NAMES)
def test_a_name_is_no_pattern(tmp_path, monkeypatch, ours, theirs, is_relative):
    for name, value in ((ours, 1), (theirs, 2)):
        (tmp_path / name).mkdir(parents=True)
        pq.write_table(pa.table({"v": [value]}), tmp_path / name / "p.parquet")
    monkeypatch.chdir(tmp_path)
    path = Path("" if is_relative else tmp_path, ours, "p.parquet")
    assert ask(Limits(tmp_path), f"SELECT v FROM {parquet_files([path])}") == [(1,)]


@pytest.mark.parametrize(("ours", "theirs"), NAMES)
def test_scratch_is_where_it_was_meant(tmp_path, monkeypatch, ours, theirs):
    for name in (ours, theirs):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with connect(Limits(Path(ours), 20_000_000, 1)) as connection:
        connection.sql(HASHES)
        spilled = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.tmp")]
        assert spilled
        assert all(path.parts[0] == ours for path in spilled)


def test_a_backslash_in_both_names_is_refused(tmp_path, monkeypatch):
    (tmp_path / "b\\c").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "b\\c"))
    with pytest.raises(UserError, match=r"takes the backslash in .*TMPDIR"):
        parquet_files([tmp_path / "b\\c" / "p.parquet"])


def test_a_connection_shares_no_file_with_another(tmp_path):
    limits = Limits(tmp_path / "a" / "scratch", 20_000_000, 1)
    with connect(limits) as one, connect(limits) as other:
        for connection in (one, other):
            connection.sql(HASHES)
        folders = {path.parent for path in limits.scratch.rglob("*.tmp")}
        assert len(folders) == 2
        for connection in (one, other):
            assert connection.sql("SELECT count(*) FROM a WHERE one IS NULL").fetchall() == [(0,)]
    assert not [*limits.scratch.iterdir()]


def test_a_folder_like_a_setting_is_no_column(tmp_path):
    path = tmp_path / "v=2" / "w=3" / "p.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"v": [1]}), path)
    assert ask(Limits(tmp_path), f"SELECT * FROM {parquet_files([path])}") == [(1,)]
