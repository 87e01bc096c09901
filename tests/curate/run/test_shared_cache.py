"""What the cache holds and when it was used, and the note where that is more than wanted."""

import os
import time

import pytest

from curate.run import shared_cache
from curate.run.config import RunConfig
from curate.run.schema import UserError


def write(path, size=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def test_entries_are_the_known_files_and_a_second_name_takes_no_room(tmp_path):
    part = write(tmp_path / "annotations/x/part-1.parquet")
    linked = write(tmp_path / "own/part-2.parquet")
    os.link(linked, second := tmp_path / "annotations/x/part-2.parquet")
    pack = write(tmp_path / "latents/y/z.safetensors", 7)
    hidden = write(tmp_path / "conditioning/y/z.safetensors", 8)
    listing = write(tmp_path / "shards/z.json", 9)
    for other in ("annotations/x/.lock", "latents/y/.a.safetensors.1.part", "elsewhere/a.json"):
        write(tmp_path / other)
    os.utime(part, ns=(5, 5))
    found = list(shared_cache.entries(tmp_path))
    assert [(entry.path, entry.kind, entry.bytes) for entry in found] == [
        (part, "annotations", 100),
        (second, "annotations", 0),
        (pack, "latents", 7),
        (hidden, "conditioning", 8),
        (listing, "shards", 9),
    ]
    assert found[0].used_ns == 5
    shared_cache.touch([part, tmp_path / "gone"])
    assert time.time() - part.stat().st_mtime < 60


def test_a_note_says_where_the_cache_holds_more_than_wanted(tmp_path):
    cache_dir = tmp_path / ".cache"
    assert shared_cache.note(cache_dir, 0) == ""
    write(cache_dir / "latents/y/z.safetensors", 30_000_000)
    assert shared_cache.note(cache_dir, 0.03) == ""
    said = shared_cache.note(cache_dir, 0.02)
    assert "holds 0.03 GB, more than run.cache_gb=0.02" in said
    assert f"python -m workflows.prune --root {tmp_path} --keep-gb 0.02" in said


def test_a_limit_below_zero_is_refused():
    with pytest.raises(UserError, match=r"run\.cache_gb"):
        RunConfig(name="x", cache_gb=-1)
