"""The copy of a finished curation in an object store: complete, last the manifest, and resumed."""

import errno
import hashlib
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate import readers
from curate.annotate.config import AnnotateConfig
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.pack.config import ShardsConfig
from curate.pipeline import copying, full, request
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import remote, remote_files
from curate.run.config import RunConfig
from curate.run.manifest import Manifest, ShardInfo, write_manifest
from curate.run.schema import UserError

URL = "s3://bucket/runs/mine"
COPIED = ["config.yaml", "ledger/part-00000.parquet", "report.html"]
LEFT = ["annotations/part-00000.parquet", "tasks/plan.json", "checksums.json", ".hidden"]


@pytest.fixture
def finished(tmp_path):
    """A folder with the files of a curation; call it to write it again with other shards."""

    def write(shards=3, salt=b""):
        infos = []
        for name in (*COPIED, *LEFT):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"this is {name}")
        for number in range(shards):
            path, data = f"shards/train/{number:06d}.tar", bytes([number]) * 5000 + salt
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            infos.append(ShardInfo(path, "train", 1, len(data), digest))
        write_manifest(tmp_path, Manifest(tuple(infos), {}, {}, "jpg"))
        return tmp_path

    return write


def config_of(url=URL):
    return SimpleNamespace(run=RunConfig(copy_to=url))


def names_in(s3):
    files = (name for name in s3.objects if not name.endswith("/"))  # others mark folders
    return sorted(name.removeprefix("bucket/runs/mine/") for name in files)


def uploaded(s3):
    """The files that were written, in order, once each; ``copied.json`` left out."""
    puts = [name for method, name, _ in s3.asked if method == "PUT" and name[-1] != "/"]
    names = (name.removeprefix("bucket/runs/mine/") for name in puts)
    return [name for name in dict.fromkeys(names) if name != "copied.json"]


def is_whole(s3, folder):
    return all(
        s3.objects[f"bucket/runs/mine/{name}"] == (folder / name).read_bytes()
        for name in names_in(s3)
        if name != "copied.json"
    )


def test_everything_but_what_only_this_machine_needs(s3, finished):
    folder = finished()
    said = copying.copy(config_of(), folder)
    tars = [f"shards/train/{number:06d}.tar" for number in range(3)]
    assert names_in(s3) == sorted([*COPIED, *tars, "manifest.json", "copied.json"])
    assert is_whole(s3, folder)
    assert uploaded(s3)[-1] == "manifest.json"
    assert said == f"copied: 7 of 7 files to {URL}; the others were there"


def test_nothing_is_copied_twice(s3, finished):
    folder = finished()
    copying.copy(config_of(), folder)
    s3.asked.clear()
    assert copying.copy(config_of(f"{URL}/"), folder).startswith("copied: 0 of 7 files")
    assert not [method for method, _, _ in s3.asked if method in ("PUT", "POST", "DELETE")]


def test_other_bytes_of_the_same_size_are_copied(s3, finished):
    copying.copy(config_of(), folder := finished())
    (folder / "report.html").write_text("THIS IS report.html")
    s3.asked.clear()
    copying.copy(config_of(), folder)
    assert uploaded(s3) == ["report.html", "manifest.json"]
    assert is_whole(s3, folder)


def test_an_object_that_was_cut_off_is_copied_again(s3, finished):
    copying.copy(config_of(), folder := finished())
    s3.objects["bucket/runs/mine/shards/train/000001.tar"] = b"cut"
    s3.asked.clear()
    copying.copy(config_of(), folder)
    assert uploaded(s3) == ["shards/train/000001.tar", "manifest.json"]
    assert is_whole(s3, folder)


def test_an_interrupted_copy_goes_on(s3, finished, monkeypatch):
    monkeypatch.setattr(copying, "_THREADS", 1)
    folder = finished(shards=6)
    s3.fail = lambda method, path: method == "PUT" and path.endswith("000003.tar")
    with pytest.raises(UserError, match="type the same command again, which goes on with it"):
        copying.copy(config_of(), folder)
    first = set(uploaded(s3)) - {"shards/train/000003.tar"}
    assert "manifest.json" not in names_in(s3)
    assert "shards/train/000002.tar" in first
    s3.fail = lambda method, path: False
    s3.asked.clear()
    copying.copy(config_of(), folder)
    assert first.isdisjoint(uploaded(s3))
    assert is_whole(s3, folder)
    assert "manifest.json" in names_in(s3)


def test_while_shards_change_there_is_no_manifest(s3, finished):
    copying.copy(config_of(), finished(shards=4))
    folder = finished(shards=2, salt=b"other")
    s3.fail = lambda method, path: method == "PUT" and path.endswith(".tar")
    with pytest.raises(UserError):
        copying.copy(config_of(), folder)
    assert "manifest.json" not in names_in(s3)
    s3.fail = lambda method, path: False
    (folder / "shards/train/000002.tar").unlink()
    (folder / "shards/train/000003.tar").unlink()
    said = copying.copy(config_of(), folder)
    assert "2 files in s3://bucket/runs/mine/shards are of an earlier curation" in said
    assert "shards/train/000003.tar" in names_in(s3)
    listed = json.loads(s3.objects["bucket/runs/mine/manifest.json"])["shards"]
    assert [shard["path"] for shard in listed] == [f"shards/train/00000{n}.tar" for n in range(2)]


def test_a_kill_at_any_request_leaves_nothing_that_passes_for_another_curation_s(
    s3, finished, monkeypatch
):
    monkeypatch.setattr(copying, "_THREADS", 1)
    copying.copy(config_of(), finished(salt=b"one"))
    s3.objects["bucket/runs/mine/shards/train/000001.tar"] = b"cut"
    kills = []
    s3.fail = lambda method, path: kills.append(dict(s3.objects))
    folder = finished(salt=b"two")
    copying.copy(config_of(), folder)
    s3.fail = lambda method, path: False
    assert is_whole(s3, folder)
    states = {json.dumps({n: v.hex() for n, v in each.items()}): each for each in kills}
    assert len(states) > 8
    for state in states.values():
        s3.objects = state
        copying.copy(config_of(), folder := finished(salt=b"one"))
        assert is_whole(s3, folder)


def test_what_cannot_be_read_here_is_not_there_in_part(s3, finished, monkeypatch):
    folder = finished()
    copying.copy(config_of(), folder)
    (folder / "report.html").write_text("another")
    opened, hashed = Path.open, copying.sha256_of

    def failing(path, *args, **options):
        if path.name != "report.html":
            return opened(path, *args, **options)
        blocks = iter([bytes(2**20), bytes(2**20)])

        def read(_):
            if (block := next(blocks, None)) is None:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return block

        return nullcontext(SimpleNamespace(read=read))

    monkeypatch.setattr(
        copying,
        "sha256_of",
        lambda path: "0" * 64 if path == folder / "report.html" else hashed(path),
    )
    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(UserError, match=r"Input/output error: '.*report\.html'"):
        copying.copy(config_of(), folder)
    assert "report.html" not in names_in(s3)
    assert "report.html" not in json.loads(s3.objects["bucket/runs/mine/copied.json"])["files"]


def test_of_a_longer_ledger_no_part_stays(s3, finished):
    folder = finished()
    for number in (1, 2):
        (folder / f"ledger/part-{number:05d}.parquet").write_text(f"pairs of part {number}")
    copying.copy(config_of(), folder)
    with remote.written(f"{URL}/ledger/part-00009.parquet") as stream:
        stream.write(b"of somebody else")
    for number in (1, 2):
        (folder / f"ledger/part-{number:05d}.parquet").unlink()
    (folder / "report.html").write_text("of fewer pairs")
    s3.asked.clear()
    said = copying.copy(config_of(), folder)
    assert [name for name in names_in(s3) if name.startswith("ledger/")] == [
        *("ledger/part-00000.parquet", "ledger/part-00009.parquet")
    ]
    assert "deleted there: 2 parts" in said
    assert "1 files in s3://bucket/runs/mine/ledger are not of this curation" in said
    # The manifest comes when the ledger is that of its curation.
    asked = [(method, name.removeprefix("bucket/runs/mine/")) for method, name, _ in s3.asked]
    deleted = [asked.index(("DELETE", f"ledger/part-{number:05d}.parquet")) for number in (1, 2)]
    assert asked.index(("DELETE", "manifest.json")) < min(deleted)
    assert max(deleted) < asked.index(("PUT", "manifest.json"))
    assert (
        "ledger/part-00001.parquet"
        not in json.loads(s3.objects["bucket/runs/mine/copied.json"])["files"]
    )
    assert "deleted" not in copying.copy(config_of(), folder)


def test_a_longer_ledger_goes_though_nothing_else_changed(s3, finished):
    (part := finished() / "ledger/part-00001.parquet").write_text("pairs")
    copying.copy(config_of(), part.parents[1])
    part.unlink()
    assert "deleted there: 1 parts" in copying.copy(config_of(), part.parents[1])
    assert "ledger/part-00001.parquet" not in names_in(s3)


def test_a_damaged_shard_is_no_copy(s3, finished):
    folder = finished()
    data = (folder / "shards/train/000001.tar").read_bytes()
    (folder / "shards/train/000001.tar").write_bytes(b"\xff" + data[1:])
    with pytest.raises(UserError, match="its sha256 is not the manifest's"):
        copying.copy(config_of(), folder)
    assert "manifest.json" not in names_in(s3)
    assert "shards/train/000001.tar" not in names_in(s3)


def test_a_large_file(s3, finished):
    folder = finished()
    (folder / "report.html").write_bytes(bytes(range(256)) * 60_000)
    copying.copy(config_of(), folder)
    assert is_whole(s3, folder)


@pytest.mark.parametrize("url", ["/mnt/runs", "bucket/runs"])
def test_only_urls(url):
    with pytest.raises(UserError, match=r"run\.copy_to"):
        RunConfig(copy_to=url)


def test_a_run_stays_on_this_machine():
    with pytest.raises(UserError, match=r"run\.copy_to=s3://bucket/runs"):
        RunConfig(root="s3://bucket/runs")


def test_refused_before_anything_is_read(tiny_clip, tmp_path):
    config = CurateConfig(
        run=RunConfig(root=str(tmp_path), name="set", copy_to="s3://key:secret@bucket/x"),
        dataset=FolderConfig(name="set", reader="folder", root=str(tmp_path / "absent")),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu"),
    )
    with pytest.raises(UserError, match="holds no user, password or signature") as error:
        request.examine(config)
    assert "secret" not in str(error.value)
    run = replace(config.run, copy_to=None)
    dataset = replace(config.dataset, root="s3://bucket/pictures")
    with pytest.raises(UserError, match=r"dataset\.root has to be"):
        request.examine(replace(config, run=run, dataset=dataset))


def test_the_end_of_a_curation(s3, tiny_clip, make_pictures, tmp_path, capsys):
    config = CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="set", copy_to=URL),
        dataset=FolderConfig(
            name="set", reader="folder", root=str(make_pictures(tmp_path / "pictures", 12))
        ),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        split=SplitConfig(val=0.1, test=0.1, minimum=2),
        shards=ShardsConfig(max_samples=4),
        annotate=AnnotateConfig(images_per_part=10),
    )
    full.run(config, readers.read(config.dataset))
    assert "copied: " in capsys.readouterr().out
    assert is_whole(s3, config.run.folder / "curate")
    shards = json.loads(s3.objects["bucket/runs/mine/manifest.json"])["shards"]
    assert {shard["path"] for shard in shards} < set(names_in(s3))
    assert b"test-secret" not in b"".join(s3.objects.values())
    full.run(config, readers.read(config.dataset))
    assert "copied: 0 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://host/x", r"nothing can be written by https; type run\.copy_to=s3://"),
        ("file:///tmp/x", r"copies to an object store; .* run\.root=FOLDER"),
        ("nowhere://x/y", "nowhere:// is unknown"),
    ],
)
def test_where_nothing_can_be_written_is_refused(url, said):
    with pytest.raises(UserError, match=said):
        remote.check_writable("run.copy_to", url)


def test_a_wrong_address_says_that_the_curation_is_finished(finished, monkeypatch):
    def nowhere(key, url):
        raise UserError("Amazon S3 does not say where this bucket is")

    monkeypatch.setattr(remote_files, "found", nowhere)
    with pytest.raises(UserError, match=r"where this bucket is\. The curation in .* is finished"):
        copying.copy(config_of(), finished())
