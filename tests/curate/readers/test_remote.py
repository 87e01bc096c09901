"""Tables and shards that lie elsewhere, against the same files on this machine."""

import io
import json
import shutil
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate import readers
from curate.measures.unreadable import UnreadableImage
from curate.readers.shards import ShardsConfig
from curate.readers.tables import TableConfig
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import ATTEMPTS, WorkerSpec
from curate.run.remote import Unreachable
from curate.run.remote_files import RemotePath
from curate.run.schema import UserError
from curate.run.tar import END_OF_TAR, header


def picture(colour, side=8):
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def tar(members):
    found = bytearray()
    for name, data in members:
        found += header(name, len(data)) + data + bytes(-len(data) % 512)
    return bytes(found + END_OF_TAR)


def write_shards(folder, shards=3, samples=4, big=0):
    """img2dataset's layout; a parquet beside each, which lists one picture that is not in the tar."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        members, rows = [], []
        for number in range(samples):
            key, url = f"{shard:05d}{number:04d}", f"http://a/{shard}/{number}.png"
            rows.append({"key": key, "url": url, "caption": f"cat {key}", "status": "success"})
            if number == samples - 1:
                continue
            members += [
                (f"{key}.png", picture((shard, number, 0)) + bytes(big)),
                (f"{key}.txt", f"cat {key}".encode()),
                (f"{key}.json", json.dumps({"url": url, "caption": f"cat {key}"}).encode()),
            ]
        (folder / f"{shard:05d}.tar").write_bytes(tar(members))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
    return folder


def upload(server, folder, prefix):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            server.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def seen(source):
    """Everything that does not depend on the machine, and the pictures' bytes."""
    found = []
    for c in source.candidates():
        try:
            data = source.load(c.location)
        except UnreadableImage as error:
            data = str(error)
        found.append((c.key, c.captions, c.location, dict(c.columns), bool(c.version), data))
    return found


def shards(path, tmp_path, **options):
    return ShardsConfig(
        name="w", reader="shards", path=path, spool=str(tmp_path / "spool"), **options
    )


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["", "/", "/*.tar", "/{00000..00002}.tar"])
def test_shards(s3, work, place):
    folder = write_shards(work / "local")
    upload(s3, folder, "bucket/set")
    local = readers.read(shards(str(folder), work))
    s3.page = 2
    source = readers.read(shards(f"s3://bucket/set{place}", work))
    assert seen(source) == seen(local)
    assert len(seen(local)) == 12
    assert source.notes == local.notes


def test_missing_shards_of_a_range(s3, work):
    upload(s3, write_shards(work / "local"), "bucket/set")
    source = readers.read(shards("s3://bucket/set/{00001..00004}.tar", work))
    assert len({c.key[:5] for c in source.candidates()}) == 2
    assert source.notes[0].startswith(
        "missing shards of a range: 2, such as s3://bucket/set/00003.tar"
    )


def test_a_second_pass_asks_for_no_tar_and_pictures_are_read_by_their_place(s3, work):
    upload(s3, write_shards(work / "local"), "bucket/set")
    path = "s3://bucket/set/*.tar"
    first = list(readers.read(shards(path, work)).candidates())
    s3.asked.clear()
    source = readers.read(shards(path, work))
    assert list(source.candidates()) == first
    assert not [asked for asked in s3.asked if asked[0] == "GET" and asked[1].endswith(".tar")]
    source.load(first[0].location)
    _, offset, size = first[0].location.rsplit(":", 2)
    assert s3.asked[-1][0] != "GET" or s3.asked[-1][2]
    ranges = [asked[2] for asked in s3.asked if asked[0] == "GET" and asked[1].endswith(".tar")]
    assert ranges == [f"bytes={offset}-{int(offset) + int(size) - 1}"]


def test_large_members_are_skipped(s3, work):
    folder = write_shards(work / "local", shards=1, samples=3, big=9 * 2**20)
    upload(s3, folder, "bucket/set")
    found = list(readers.read(shards("s3://bucket/set", work)).candidates())
    assert [c.captions for c in found[:2]] == [("cat 000000000",), ("cat 000000001",)]
    spans = [
        asked[2][6:].split("-") for asked in s3.asked if asked[1].endswith(".tar") and asked[2]
    ]
    assert sum(int(end) - int(start) + 1 for start, end in spans) < 14 * 2**20  # of 18


def test_a_tar_that_is_cut_off_is_read_up_to_there(s3, work):
    folder = write_shards(work / "local", shards=1)
    path = folder / "00000.tar"
    path.write_bytes(path.read_bytes()[:4000])
    upload(s3, folder, "bucket/set")
    local = readers.read(shards(str(folder), work))
    source = readers.read(shards("s3://bucket/set", work))
    assert seen(source) == seen(local)
    assert [n.replace("s3://bucket/set", str(folder)) for n in source.notes] == local.notes


def test_a_replaced_tar_is_noticed(s3, work):
    folder = write_shards(work / "local", shards=1)
    upload(s3, folder, "bucket/set")
    source = readers.read(shards("s3://bucket/set", work))
    first = next(source.candidates())
    s3.put("bucket/set/00000.tar", s3.objects["bucket/set/00000.tar"] + bytes(512))
    with pytest.raises(UserError, match="replaced"):
        source.load(first.location)
    assert next(readers.read(shards("s3://bucket/set", work)).candidates()).version != first.version


def test_a_picture_that_cannot_be_fetched_now_is_not_dropped(s3, work):
    upload(s3, write_shards(work / "local"), "bucket/set")
    source = readers.read(shards("s3://bucket/set", work))
    first = next(source.candidates())
    s3.fail = lambda method, path: path.endswith(".tar")
    with pytest.raises(UserError, match="type the same command again"):
        source.load(first.location)
    s3.status = 400  # the client repeats requests that end with 500 or 503, which takes seconds
    with pytest.raises(Unreachable, match=r"s3://bucket/set/00000\.tar cannot be read"):
        source.load(first.location)


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (400, ATTEMPTS)])
def test_a_task_is_tried_again_unless_its_user_is_denied(s3, work, status, attempts):
    upload(s3, write_shards(work / "local"), "bucket/set")
    source = readers.read(shards("s3://bucket/set", work))
    locations = [candidate.location for candidate in source.candidates()][:1]
    s3.fail, s3.status = lambda method, path: path.endswith(".tar"), status
    spec = WorkerSpec(f"{__name__}:loading", {"load": source.load})
    [result] = InProcess().map(spec, locations)
    assert (result.attempts, result.refusal) == (attempts, attempts == 1)
    assert "s3://bucket/set/00000.tar" in result.error


@contextmanager
def loading(load):
    yield lambda task, _: load(task)


def test_a_tar_that_cannot_be_listed_now(s3, work):
    upload(s3, write_shards(work / "local"), "bucket/set")
    s3.fail, s3.status = lambda method, path: method == "GET" and path.endswith(".tar"), 400
    with pytest.raises(Unreachable, match=r"s3://bucket/set/0000.\.tar cannot be read"):
        list(readers.read(shards("s3://bucket/set", work)).candidates())


def table(path, images_dir, **options):
    return TableConfig(name="t", reader="table", path=path, images_dir=images_dir, **options)


@pytest.mark.parametrize("kind", ["parquet", "tsv", "tsv.gz", "jsonl"])
def test_tables_with_their_pictures_in_shards(s3, work, kind):
    import gzip

    images = write_shards(work / "local")
    upload(s3, images, "bucket/images")
    (work / "rows").mkdir()
    for part in range(3):
        rows = [{"url": f"http://a/{part}/{n}.png", "text": f"cat {n}"} for n in range(5)]
        path = work / "rows" / f"{part}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            text = "url\ttext\n" + "".join(f"{row['url']}\t{row['text']}\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    upload(s3, work / "rows", "bucket/rows")
    local = readers.read(table(str(work / "rows"), str(images)))
    expected = seen(local)
    assert sum(isinstance(row[-1], bytes) for row in expected) == 9
    for path in ("s3://bucket/rows", f"s3://bucket/rows/*.{kind}"):
        source = readers.read(table(path, "s3://bucket/images"))
        assert seen(source) == expected
        assert source.total == local.total
        assert source.notes == local.notes
    assert seen(readers.read(table("s3://bucket/rows", str(images)))) == expected


def test_a_changed_table_is_noticed(s3, work):
    upload(s3, write_shards(work / "local", shards=1), "bucket/images")
    s3.put("bucket/t.tsv", b"url\ttext\nhttp://a/0/0.png\tcat\n")
    source = readers.read(table("s3://bucket/t.tsv", "s3://bucket/images"))
    s3.put("bucket/t.tsv", b"url\ttext\nhttp://a/0/1.png\tcat and dog\n")
    with pytest.raises(UserError, match="has changed"):
        next(source.candidates())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://key:secret@bucket/set", "holds no user, password or signature"),
        ("s3://key:se/secret/cret@bucket/set", "signature.*type dataset.path=s3://bucket/set"),
        ("s3://key:secret/set", "holds no user, password or signature"),
        ("https://host/a.tar?X-Amz-Signature=secret", "holds no user, password or signature"),
        ("nowhere://bucket/set", "nowhere:// is unknown"),
        ("file:///data/set", "dataset.path=/data/set"),
    ],
)
def test_refused(work, path, message):
    for config in (shards(path, work), table(path, str(work))):
        with pytest.raises(UserError, match=message) as error:
            readers.read(config)
        assert "secret" not in str(error.value)


def test_nothing_there(s3, work):
    s3.put("bucket/other", b"")
    with pytest.raises(FileNotFoundError, match="was not found"):
        readers.read(shards("s3://bucket/set", work))
    with pytest.raises(FileNotFoundError, match="was not found"):
        readers.read(table("s3://bucket/set", str(work)))
    s3.put("bucket/t.tsv", b"url\ttext\nhttp://a\tb\n")
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar"):
        readers.read(table("s3://bucket/t.tsv", "s3://bucket/images"))


def test_denied(s3, work):
    upload(s3, write_shards(work / "local"), "bucket/set")
    s3.fail = lambda method, path: True
    with pytest.raises(UserError, match="cannot be listed"):
        readers.read(shards("s3://bucket/set", work))


def test_other_schemes_of_fsspec(work):
    import fsspec

    folder = write_shards(work / "local")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/set", recursive=True)
    try:
        assert seen(readers.read(shards("memory://set", work))) == seen(
            readers.read(shards(str(folder), work))
        )
    finally:
        memory.rm("/set", recursive=True)


def test_a_file_of_any_size_is_read_whole(s3):
    data = bytes(range(256)) * 40_000
    s3.put("bucket/a", data)
    with RemotePath("s3://bucket/a").open() as stream:
        assert stream.read() == data
    shutil.copyfileobj(RemotePath("s3://bucket/a").open(), copied := io.BytesIO())
    assert copied.getvalue() == data
