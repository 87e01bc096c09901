"""Published archives: fetched once, resumed by ranges, checked, and unpacked without surprises."""

import hashlib
import io
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from importlib.metadata import version
from types import SimpleNamespace

import aiohttp
import pytest

from curate.fetch import official, resumable, unpack
from curate.fetch.config import FetchConfig
from curate.readers.archives import Archive
from curate.readers.coco import CocoConfig
from curate.readers.folder import FolderConfig
from curate.run.schema import UserError
from tests.curate.fetch.archive_server import Behaviour, serving

PICTURES = 12


def zipped(files, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def content(seed=0):
    draw = random.Random(seed)
    return {f"val/{n:03d}.jpg": draw.randbytes(20_000) for n in range(PICTURES)}


BODY = zipped(content())


def archive(host, body=BODY, **changes):
    settings = {"holds": {"val": PICTURES}, "sha256": hashlib.sha256(body).hexdigest()}
    return Archive(f"{host}/zips/val.zip", len(body), **(settings | changes))


async def at_once(seconds):
    at_once.waits.append(seconds)


at_once.waits = []


def fetch(host, root, **changes):
    at_once.waits.clear()
    official.fetch([archive(host, **changes)], root, sleep=at_once)


def files(root):
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_what_is_fetched_is_unpacked_and_not_fetched_again(tmp_path):
    with serving(Behaviour(BODY)) as host:
        fetch(host, tmp_path / "data")
        assert files(tmp_path / "data") == content()  # and neither zip file nor notes
    fetch(host, tmp_path / "data")  # the server is gone


def test_what_is_there_already_is_not_asked_for(tmp_path):
    for name, picture in content().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)
    how = Behaviour(BODY)
    with serving(how) as host:
        fetch(host, tmp_path)
        assert how.asked == []
        (tmp_path / "val" / "003.jpg").unlink()
        fetch(host, tmp_path)
    assert len(how.asked) == 1
    assert files(tmp_path) == content()


def test_cut_connections_go_on_where_they_were(tmp_path):
    how = Behaviour(BODY, cuts=[50_000, 0, 7, 100_000])
    with serving(how) as host:
        fetch(host, tmp_path)
    assert files(tmp_path) == content()
    assert how.asked == [
        "",
        "bytes=50000-",
        "bytes=50000-",
        "bytes=50007-",
        "bytes=150007-",
    ]
    assert at_once.waits == [1, 2, 1, 1]  # longer only where nothing came
    assert how.sent == len(BODY)


def test_an_answer_without_a_length_that_ends_early_goes_on(tmp_path):
    with serving(Behaviour(BODY, cuts=[60_000], sends_length=False)) as host:
        fetch(host, tmp_path)
    assert files(tmp_path) == content()


def test_a_changed_file_is_fetched_from_the_start(tmp_path, capsys):
    for honours in (True, False):
        root = tmp_path / str(honours)
        how = Behaviour(zipped(content(1)), cuts=[90_000], honours_if_range=honours)
        assert len(how.body) == len(BODY)
        with serving(how) as host:

            async def changes(_, how=how):
                how.etag, how.body = '"two"', BODY

            official.fetch([archive(host)], root, sleep=changes)
        assert files(root) == content()
        assert how.asked[:2] == ["", "bytes=90000-"]
    assert "from the start" in capsys.readouterr().out


def test_a_server_without_ranges_or_without_a_validator_starts_again(tmp_path):
    for name, settings in (
        ("ranges", {"ranges": False}),
        ("etag", {"etag": ""}),
        ("weak", {"etag": 'W/"x"'}),
    ):
        with serving(Behaviour(BODY, cuts=[90_000], **settings)) as host:
            fetch(host, tmp_path / name)
        assert files(tmp_path / name) == content()


@pytest.mark.parametrize("said", [len(BODY) - 10, len(BODY) + 10])
def test_another_length_than_published_is_refused(tmp_path, said):
    with (
        serving(Behaviour(BODY, says_length=said)) as host,
        pytest.raises(UserError, match=rf"{len(BODY):,} bytes as published.* {said:,}"),
    ):
        fetch(host, tmp_path)


def test_more_bytes_than_published_are_refused(tmp_path):
    longer = Behaviour(BODY + b"x" * 10, sends_length=False)
    with serving(longer) as host, pytest.raises(UserError, match="more than that"):
        fetch(host, tmp_path)
    assert not (tmp_path / "val").exists()


def test_errors_that_pass_are_waited_for_and_others_are_not(tmp_path):
    how = Behaviour(BODY, statuses=[503, 429, 500])
    with serving(how) as host:
        fetch(host, tmp_path / "passes")
    assert at_once.waits == [2, 4, 8]
    how = Behaviour(BODY, statuses=[404])
    with serving(how) as host, pytest.raises(UserError, match="status 404"):
        fetch(host, tmp_path / "gone")
    assert at_once.waits == []
    how = Behaviour(BODY, statuses=[503] * 50)
    with serving(how) as host, pytest.raises(UserError, match="the same command goes on"):
        fetch(host, tmp_path / "down")
    assert len(how.asked) == resumable.TRIES


def test_without_a_network_it_ends_at_once(tmp_path, monkeypatch):
    async def unknown(*_):
        key = SimpleNamespace(host="a.test", port=80, ssl=False)
        raise aiohttp.ClientConnectorDNSError(key, OSError("Name or service not known"))  # pyright: ignore

    monkeypatch.setattr(resumable, "_attempt", unknown)
    with pytest.raises(UserError, match=r"no host of this name, or no network"):
        fetch("http://a.test", tmp_path)
    assert not at_once.waits


def test_each_wait_is_said(tmp_path, capsys):
    with serving(Behaviour(BODY, statuses=[503, 503])) as host:
        fetch(host, tmp_path)
    assert capsys.readouterr().err.count("no answer (status 503); asked again in") == 2


def test_it_goes_nowhere_else(tmp_path):
    other = Behaviour(BODY)
    with serving(other) as elsewhere:
        how = Behaviour(BODY, statuses=[302], location=f"{elsewhere}/val.zip")
        with serving(how) as host, pytest.raises(UserError, match=f"points to '{elsewhere}"):
            fetch(host, tmp_path)
    assert other.asked == []


def test_another_file_of_the_same_length_is_refused_and_deleted(tmp_path):
    other = zipped(content(1))
    with serving(Behaviour(other)) as host:
        with pytest.raises(UserError, match="not the file that was published"):
            fetch(host, tmp_path)
        assert not list(tmp_path.glob("*/*.zip*"))
        fetch(
            host, tmp_path, sha256=""
        )  # where no hash is known, the zip's own checksums have to do
    assert files(tmp_path) == content(1)


def test_a_damaged_zip_is_deleted(tmp_path):
    damaged = bytearray(BODY)
    damaged[1000] ^= 1
    for body in (bytes(damaged), b"x" * len(BODY)):
        with serving(Behaviour(body)) as host, pytest.raises(UserError, match="damaged"):
            fetch(host, tmp_path, sha256="")
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".zip", ".jpg")]


def test_a_full_disk_is_said_before_anything_is_asked(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 2**30 + len(BODY)))
    how = Behaviour(BODY)
    with (
        serving(how) as host,
        pytest.raises(UserError, match=r"GB have to be free.* dataset\.root=FOLDER"),
    ):
        fetch(host, tmp_path)
    assert how.asked == []


def member(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("val/../../out.jpg"),
        member("val//out.jpg"),
        member("val/./out.jpg"),
        member("val/..\\out.jpg"),
        member("val/link.jpg", stat.S_IFLNK | 0o777),
        member("val/fifo.jpg", stat.S_IFIFO),
    ],
    ids=lambda info: info.filename,
)
def test_what_leads_out_is_refused(tmp_path, evil):
    body = zipped({**content(), evil: b"/etc/passwd"})
    root = tmp_path / "data"
    with serving(Behaviour(body)) as host, pytest.raises(UserError, match="val"):
        fetch(host, root, body=body)
    assert not (root / "val").exists()
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.parametrize("names", [("val/a", "val/a/b"), ("val/a/b/c", "val/a"), ("val", "val/b")])
def test_a_name_of_a_file_and_of_a_folder_is_refused(tmp_path, names):
    for number, order in enumerate((names, names[::-1])):
        root, body = tmp_path / str(number), zipped(dict.fromkeys(order, b"x"))
        said = r"val\.zip holds 'val(/a)?' as a file and as a folder"
        with serving(Behaviour(body)) as host, pytest.raises(UserError, match=said):
            fetch(host, root, body=body)
        assert not (root / "val").exists()


def test_a_name_that_the_disk_refuses_is_named(tmp_path):
    long = f"val/{'x' * 300}.jpg"
    body = zipped({**content(), long: b"x"})
    with (
        serving(Behaviour(body)) as host,
        pytest.raises(UserError, match=r"val\.zip holds 'val/xxx.* no name"),
    ):
        fetch(host, tmp_path / "data", body=body)
    assert not (tmp_path / "data" / "val").exists()


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    for name, said in (("val", "is a file"), ("val/003.jpg/x", "is a folder")):
        root = tmp_path / name.replace("/", "-")
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with serving(Behaviour(BODY)) as host, pytest.raises(UserError, match=said):
            fetch(host, root)
        assert path.read_text() == "mine"


def test_the_server_is_told_who_asks(tmp_path):
    for contact, said in ((None, ""), ("me@example.org", " (+me@example.org)")):
        how = Behaviour(BODY)
        with serving(how) as host:
            asking = FetchConfig(contact=contact)
            official.fetch([archive(host)], tmp_path / str(contact), asking)
        assert how.agents == {f"Darkroom/{version('darkroom')}{said}"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path):
    body = zipped({**content(), member("val/000.jpg"): b"other"})
    with serving(Behaviour(body)) as host, pytest.raises(UserError, match="twice"):
        fetch(host, tmp_path, body=body)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    body = zipped({f"val/{n}.jpg": bytes(3_000_000) for n in range(PICTURES)}, zipfile.ZIP_DEFLATED)
    with serving(Behaviour(body)) as host, pytest.raises(UserError, match="would unpack to"):
        fetch(host, tmp_path, body=body)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_directory_that_lies_about_a_size_unpacks_no_more_than_it_says(tmp_path):
    body = bytearray(zipped({"val/0.jpg": bytes(3_000_000)}, zipfile.ZIP_DEFLATED))
    for place in (body.index(b"PK\x01\x02") + 24, body.index(b"PK\x03\x04") + 22):
        body[place : place + 4] = (100).to_bytes(4, "little")
    body = bytes(body)
    with serving(Behaviour(body)) as host, pytest.raises(UserError, match="damaged"):
        fetch(host, tmp_path, body=body)
    assert not list(tmp_path.rglob("*.jpg"))


def test_only_what_is_wanted_is_unpacked(tmp_path):
    body = zipped({"annotations/a.json": b"1", "annotations/b.json": b"2", "../evil": b"3"})
    with serving(Behaviour(body)) as host:
        fetch(host, tmp_path, body=body, holds={}, files=("annotations/a.json",))
    assert files(tmp_path) == {"annotations/a.json": b"1"}


def test_fewer_files_than_published_are_an_error(tmp_path):
    with serving(Behaviour(BODY)) as host, pytest.raises(UserError, match="fewer files"):
        fetch(host, tmp_path, holds={"val": PICTURES + 1})


def test_killed_at_any_moment_it_goes_on(tmp_path):
    """Three kills while it fetches: what had come is not asked for again."""
    how = Behaviour(BODY, bytes_per_s=600_000)
    draw, end = random.Random(3), time.monotonic() + 60
    with serving(how) as host:
        code = (
            "import sys; from pathlib import Path; from curate.fetch import official; "
            "from curate.readers.archives import Archive; "
            f"official.fetch([{archive(host)!r}], Path({str(tmp_path)!r}))"
        )
        for _ in range(3):
            process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
            before = how.sent
            while process.poll() is None and how.sent < before + 20_000 and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (tmp_path / "val").exists()
        how.bytes_per_s = 0
        assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
    assert files(tmp_path) == content()
    assert any(wanted.startswith("bytes=") for wanted in how.asked)


def test_killed_while_it_unpacks_it_unpacks_again(tmp_path, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    how = Behaviour(BODY)
    with serving(how) as host:
        monkeypatch.setattr(unpack.os, "sync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(host, tmp_path)
        assert not (tmp_path / "val").exists()
        monkeypatch.undo()
        fetch(host, tmp_path)
    assert len(how.asked) == 1
    assert files(tmp_path) == content()


def test_only_data_sets_with_archives_can_be_fetched(tmp_path):
    with pytest.raises(UserError, match="dataset=mine cannot be fetched"):
        official.fetch_missing(FolderConfig(name="mine", reader="folder", root=str(tmp_path)))
    path = tmp_path / "captions_val2017.json"
    path.write_text("{}")
    with pytest.raises(UserError, match=rf"type dataset\.root={tmp_path}"):
        official.fetch_missing(
            CocoConfig(name="coco", reader="coco", root=str(path), download=True)
        )


def test_the_archives_of_coco_are_those_of_its_splits():
    def names(splits):
        return [each.name for each in CocoConfig("coco", "coco", splits=splits).archives]

    assert names(None) == ["annotations_trainval2017.zip", "train2017.zip", "val2017.zip"]
    assert names(["val2017"]) == ["annotations_trainval2017.zip", "val2017.zip"]
    assert names(["val2014"]) == ["annotations_trainval2014.zip", "val2014.zip"]
    with pytest.raises(UserError, match=r"dataset\.splits=\[test2017\]"):
        names(["test2017"])
    for each in CocoConfig("coco", "coco").archives:
        assert each.url.startswith("http://images.cocodataset.org/")
        assert len(each.sha256) == 64
        assert each.files or each.holds


def test_the_pipeline_fetches_before_it_reads(tmp_path, monkeypatch):
    from curate.pipeline import request

    order = []
    monkeypatch.setattr(official, "fetch_missing", lambda *_: order.append("fetch"))
    monkeypatch.setattr(request.readers, "read", lambda config: order.append("read"))
    monkeypatch.setattr(request.availability, "check_available", lambda clip: order.append("clip"))
    monkeypatch.setattr(request.models, "check", lambda clip: None)
    monkeypatch.setattr(request.cut, "check", lambda *_: None)
    monkeypatch.setattr(request.own_part, "check", lambda *_: None)
    from curate.clip.config import ClipConfig
    from curate.pipeline.config import CurateConfig
    from curate.run.config import RunConfig

    for download, said in ((True, ["clip", "fetch", "read", "clip"]), (False, ["read", "clip"])):
        order.clear()
        data = CocoConfig("coco", "coco", root=str(tmp_path), download=download)
        clip = ClipConfig("ViT-B-32-quickgelu", "openai", device="cpu")
        run = RunConfig(str(tmp_path), "coco")
        request.examine(CurateConfig(run=run, dataset=data, clip=clip))
        assert order == said
