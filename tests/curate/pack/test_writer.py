"""Shards: readable by any WebDataset reader, reproducible to the byte, never half-written."""

import json
import tarfile

import pyarrow.parquet as pq
import pytest

from curate.pack.plan import is_written, remove_stale
from curate.pack.sample import Sample, encode_sample, read_shard
from curate.pack.writer import write_shard
from curate.run.files import write_certified
from curate.run.manifest import Manifest, ShardInfo, read_manifest, write_manifest
from curate.run.schema import UserError
from curate.run.tar import END_OF_TAR, header
from tests.curate.pack.oracle import plan

WANTED = "a digest"


def row(number, split="train"):
    return {
        "key": f"k{number:03d}",
        "captions": [f"caption {number}", "ünïcode \U0001f408"],
        "similarity": [0.3, None],
        "split": split,
        "width": 4,
        "height": 4,
        "url": "",
    }


def image_of(row):
    return f"image of {row['key']}".encode() * 100


def plans_of(rows, max_samples):
    sides = {}
    for r in rows:
        sides.setdefault(r["split"], []).append(r["key"])
    return plan(sides, max_samples)


def rows_of(planned, rows):
    by_key = {r["key"]: r for r in rows}
    return [by_key[key] for key in planned.keys]


def write(folder, rows, max_samples=1000):
    plans = plans_of(rows, max_samples)
    return plans, [
        write_shard(folder, p, ordered, WANTED, "png", map(image_of, ordered))
        for p in plans
        for ordered in [rows_of(p, rows)]
    ]


def test_a_shard_reads_back(tmp_path):
    [planned], [info] = write(tmp_path, [row(i) for i in range(5)])
    samples = list(read_shard(tmp_path / info.path))
    assert [sample.key for sample in samples] == planned.keys
    first = samples[0]
    assert first.image == image_of({"key": first.key})
    assert first.captions == tuple(row(int(first.key[1:]))["captions"])
    assert first.caption == first.captions[0]
    assert first.meta["similarity"] == [0.3, None]
    assert "url" not in first.meta  # empty values are left out


def test_the_sidecar_table_keeps_integers(tmp_path):
    rows = [row(0) | {"photo_id": 2**53 + 1}, row(1) | {"photo_id": None}]
    [planned], [info] = write(tmp_path, rows)
    table = pq.read_table((tmp_path / info.path).with_suffix(".parquet")).to_pylist()
    assert table == [
        {"key": r["key"], "caption": r["captions"][0], **r} for r in rows_of(planned, rows)
    ]
    assert [*table[0]][:3] == ["key", "caption", "captions"]


@pytest.mark.parametrize("name", ["a.jpg", "k" * 95 + ".json"])
@pytest.mark.parametrize("size", [0, 7, 8**10 + 5])
def test_headers_equal_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_webdataset_and_tarfile_read_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    _, [info] = write(tmp_path, [row(i) for i in range(5)])
    path = tmp_path / info.path
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    ours = list(read_shard(path))
    assert [sample["__key__"] for sample in found] == [sample.key for sample in ours]
    assert [sample["txt"] for sample in found] == [sample.caption for sample in ours]
    assert [sample["json"] for sample in found] == [sample.meta for sample in ours]
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert info.bytes == path.stat().st_size


def test_bytes_do_not_depend_on_order_or_folder(tmp_path):
    rows = [row(i, "val" if i % 5 == 0 else "train") for i in range(50)]
    _, one = write(tmp_path / "one", rows, 16)
    _, other = write(tmp_path / "other", rows[::-1], 16)
    assert one == other
    for info in one:
        for suffix in (".tar", ".parquet"):
            path = (tmp_path / "one" / info.path).with_suffix(suffix)
            assert (
                path.read_bytes()
                == (tmp_path / "other" / info.path).with_suffix(suffix).read_bytes()
            )


def test_a_written_shard_is_recognised_until_something_changes(tmp_path):
    [planned], [info] = write(tmp_path, [row(i) for i in range(5)])
    assert is_written(tmp_path, planned, WANTED) == info
    assert is_written(tmp_path, planned, "another digest") is None
    (tmp_path / info.path).write_bytes(b"cut short")
    assert is_written(tmp_path, planned, WANTED) is None


def test_an_error_in_the_middle_leaves_no_tar(tmp_path):
    def fail_late(row):
        if row["key"] == planned.keys[3]:
            raise RuntimeError("disk on fire")
        return b"image"

    rows = [row(i) for i in range(5)]
    [planned] = plans_of(rows, 10)
    rows = rows_of(planned, rows)
    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(tmp_path, planned, rows, WANTED, "png", map(fail_late, rows))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_stale_shards_are_deleted(tmp_path):
    plans, _ = write(tmp_path, [row(i) for i in range(50)], 10)
    remove_stale(tmp_path, plans[:2])
    left = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    stems = [planned.path.removesuffix(".tar") for planned in plans[:2]]
    assert left == {f"{s}{end}" for s in stems for end in (".tar", ".parquet", "_stats.json")}


def members(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return path


def test_a_broken_shard_is_named(tmp_path):
    apart = members(tmp_path / "apart.tar", ["a.txt", "b.txt", "a.json"])
    with pytest.raises(ValueError, match=r"apart\.tar: sample 'a' has only txt"):
        list(read_shard(apart))
    _, [info] = write(tmp_path, [row(i) for i in range(5)])
    whole = (tmp_path / info.path).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:5_000])
    with pytest.raises(ValueError, match=r"cut\.tar"):
        list(read_shard(tmp_path / "cut.tar"))


def test_members_that_are_not_adjacent_are_an_error(tmp_path):
    one, other = (
        Sample("a", b"1", ("x",), {"captions": ["x"]}),
        Sample("b", b"2", ("x",), {"captions": ["x"]}),
    )
    path = tmp_path / "twice.tar"
    path.write_bytes(
        b"".join(part for sample in (one, other, one) for part in encode_sample(sample, "png"))
        + END_OF_TAR
    )
    with pytest.raises(ValueError, match=r"twice\.tar.*'a'.*not adjacent"):
        list(read_shard(path))


def test_manifest_round_trip_and_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m curate run\.name=mine"):
        read_manifest(tmp_path / "mine" / "curate")
    info = ShardInfo("shards/train/000000.tar", "train", 5, 10_240, "ab" * 32)
    manifest = Manifest((info,), {"pairs_in": 5}, {"scorer": "x"}, "png")
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path).shards_of("val") == []
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"version": 9}))
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(tmp_path)
    write_certified(tmp_path / "manifest.json", content | {"version": 9})
    with pytest.raises(UserError, match="version 9"):
        read_manifest(tmp_path)


def test_a_shard_without_its_table_counts_as_unwritten(tmp_path, monkeypatch):
    rows = [row(i) for i in range(5)]
    [planned], _ = write(tmp_path, rows)
    other = [r | {"captions": ["another"]} for r in rows]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curate.pack.writer._write_sidecar", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, other)
    assert is_written(tmp_path, planned, WANTED) is None
