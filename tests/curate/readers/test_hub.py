"""Data sets that `datasets` opens without a network: folders, parquet, WebDataset, saved ones; streams."""

import errno
import io
import itertools
import json
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pillow

from curate import readers
from curate.measures.decode import UnreadableImage
from curate.readers.hub import HubConfig, stream_cache
from curate.readers.hub.stored_image import bytes_of, folders_of
from curate.run.schema import UserError


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def picture(seed):
    stream = io.BytesIO()
    Pillow.new("RGB", (4, 3), (seed, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def hub(path, **options):
    return readers.read(HubConfig(name="mine", reader="hub", path=str(path), **options))


def pairs(source):
    return [(source.load(c.location), c.captions) for c in source.candidates()]


def table(count=5):
    return Dataset.from_dict(
        {
            "photo": [{"bytes": picture(i), "path": None} for i in range(count)],
            "mask": [{"bytes": picture(99), "path": None}] * count,
            "caption": [[f"one {i}", f"two {i}"] for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "key": [f"k{i}" for i in range(count)],
        },
        features=Features(
            {
                "photo": Image(),
                "mask": Image(),
                "caption": List(Value("string")),
                "label": ClassLabel(names=["cat", "dog"]),
                "key": Value("string"),
            }
        ),
    )


EXPECTED = [(picture(i), (f"one {i}", f"two {i}")) for i in range(5)]


@pytest.fixture(params=["parquet", "saved", "saved splits"])
def stored(request, tmp_path):
    if request.param == "parquet":
        (tmp_path / "d").mkdir()
        table().to_parquet(tmp_path / "d" / "train.parquet")
    elif request.param == "saved":
        table().save_to_disk(tmp_path / "d")
    else:
        DatasetDict(train=table(), val=table(1)).save_to_disk(tmp_path / "d")
    return tmp_path / "d"


def test_rows_in_any_order_with_stored_bytes(stored):
    source = hub(stored, image_column="photo")
    candidates = list(source.candidates())
    assert (source.total, [c.captions for c in candidates]) == (5, [c for _, c in EXPECTED])
    assert len({c.key for c in candidates}) == 5
    assert candidates[1].columns == {"label": "dog", "source_key": "k1"}
    order = [3, 0, 4, 4, 1, 2] * 20
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda i: source.load(candidates[i].location), order))
    assert loaded == [EXPECTED[i][0] for i in order]
    again = hub(stored, image_column="photo")
    assert list(again.candidates()) == candidates  # versions too


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of datasets
def test_a_picture_in_its_own_file_has_a_version_of_its_own(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    for i in range(3):
        (root / f"{i}.png").write_bytes(picture(i))
    rows = [json.dumps({"file_name": f"{i}.png", "text": f"a cat {i}"}) for i in range(3)]
    (root / "metadata.jsonl").write_text("\n".join(rows))
    before = list(hub(root).candidates())
    times = (root / "1.png").stat()
    (root / "1.png").write_bytes(picture(4))
    os.utime(root / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = list(hub(root).candidates())
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_labels_and_nested_fields_as_captions(tmp_path):
    table().save_to_disk(tmp_path / "d")
    named = hub(tmp_path / "d", image_column="photo", caption_column="label")
    assert [c.captions for c in named.candidates()][:3] == [("cat",), ("dog",), ("cat",)]


def test_columns_are_guessed_only_where_clear(tmp_path):
    unclear = table().rename_columns({"photo": "left", "mask": "right"})
    unclear.save_to_disk(tmp_path / "c")
    with pytest.raises(UserError, match=r"dataset\.image_column=NAME.*left \(PIL"):
        hub(tmp_path / "c")
    table().save_to_disk(tmp_path / "d")
    assert hub(tmp_path / "d").total == 5  # a photo rather than a mask
    with pytest.raises(UserError, match=r"dataset\.caption_column=NAME.*label"):
        hub(tmp_path / "d", image_column="photo", caption_column="nope")
    table().remove_columns(["mask", "caption"]).save_to_disk(tmp_path / "e")
    with pytest.raises(UserError, match=r"dataset\.caption_column=NAME"):
        hub(tmp_path / "e")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of datasets
@pytest.mark.parametrize("streaming", [False, True])
def test_imagefolder(tmp_path, streaming):
    root = tmp_path / "d"
    root.mkdir()
    for i in range(3):
        (root / f"{i}.png").write_bytes(picture(i))
    (root / "metadata.csv").write_text("file_name,text\n0.png,zero\n1.png,one\n2.png,two\n")
    source = hub(root, streaming=streaming, spool=str(tmp_path / "spool"))
    assert pairs(source) == list(
        zip(map(picture, range(3)), [("zero",), ("one",), ("two",)], strict=True)
    )


def test_binary_columns_and_missing_images(tmp_path):
    (tmp_path / "d").mkdir()
    frame = pd.DataFrame({"img": [picture(7), None], "text": ["seven", "none"], "n": [1, 2]})
    frame.to_parquet(tmp_path / "d" / "a.parquet")
    for streaming in (False, True):
        source = hub(tmp_path / "d", streaming=streaming, spool=str(tmp_path / "spool"))
        seven, none = source.candidates()
        assert (source.load(seven.location), seven.columns) == (picture(7), {"n": 1})
        assert none.captions == ("none",)
        with pytest.raises(UnreadableImage, match="missing file"):
            source.load(none.location)


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset(tmp_path, streaming):
    root = tmp_path / "d"
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as tar:
        for i in range(3):
            meta = json.dumps({"caption": f"json {i}", "url": f"http://a/{i}"})
            members = {"png": picture(i), "json": meta.encode()}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{i}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    source = hub(root, streaming=streaming, spool=str(tmp_path / "spool"))
    assert pairs(source) == [(picture(i), (f"json {i}",)) for i in range(3)]


def test_images_of_other_places_are_not_opened(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    for folder in (root, tmp_path):
        (folder / "x.png").write_bytes(picture(3))
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.writestr("x.png", picture(3))
    folders = folders_of(str(root))
    for place in (f"{root}/x.png", f"{root}/../d/x.png", f"zip://x.png::{root}/a.zip"):
        assert bytes_of({"bytes": None, "path": place}, folders) == picture(3)
    elsewhere = ("http://a/b.png", "zip://x.png::http://a/b.zip", "ftp://a/b", "", None)
    local = (f"file://{tmp_path}/x.png", f"reference://x::{root}/a.zip", f"{root}/no.png")
    for place in (*elsewhere, *local):
        with pytest.raises(UnreadableImage, match="missing file"):
            bytes_of({"bytes": None, "path": place}, folders)
    outside = (f"{tmp_path}/x.png", f"{root}/../x.png", f"{root}/\0", "x.png")
    for place in (*outside, f"zip://x.png::{tmp_path}/a.zip"):
        with pytest.raises(UnreadableImage, match="out of the folder"):
            bytes_of({"bytes": None, "path": place}, folders)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "cannot be read (TimeoutError)"),
        (ConnectionResetError(104, "reset by peer"), "cannot be read (reset by peer)"),
        (RuntimeError("of a client"), "cannot be read (RuntimeError)"),
        (zipfile.BadZipFile("bad CRC"), "damaged archive"),
        (FileNotFoundError("gone"), "missing file"),
    ],
)
def test_what_a_server_does_is_the_image_s_error(monkeypatch, error, says):
    def refuse(path):
        raise error

    monkeypatch.setattr("fsspec.open", refuse)
    with pytest.raises(UnreadableImage) as raised:
        bytes_of({"bytes": None, "path": "hf://datasets/a/b/c.png"}, ())
    assert raised.value.reason == says


def test_a_stream_keeps_no_gap_for_what_can_be_read_later(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    pd.DataFrame({"img": [picture(7)], "text": ["seven"]}).to_parquet(tmp_path / "d" / "a.parquet")

    def refuse(value, folders):
        raise UnreadableImage("cannot be read (TimeoutError)")

    with monkeypatch.context() as patch:
        patch.setattr("curate.readers.hub.reader.bytes_of", refuse)
        with pytest.raises(UserError, match=r"broke off after 0 samples \(cannot be read"):
            hub(tmp_path / "d", streaming=True, spool=str(tmp_path / "spool"))
    source = hub(tmp_path / "d", streaming=True, spool=str(tmp_path / "spool"))
    assert pairs(source) == [(picture(7), ("seven",))]


def test_a_missing_caption_is_not_taken_from_another_column(tmp_path):
    (tmp_path / "d").mkdir()
    pictures = [picture(seed) for seed in range(3)]
    rows = {"img": pictures, "text": ["x", "y", "z"], "caption": ["a", None, ""]}
    pd.DataFrame(rows).to_parquet(tmp_path / "d" / "a.parquet")
    for streaming in (False, True):
        source = hub(
            tmp_path / "d",
            caption_column="caption",
            streaming=streaming,
            spool=str(tmp_path / "spool"),
        )
        found = [(c.captions, dict(c.columns)) for c in source.candidates()]
        assert found == [(("a",), {"text": "x"}), ((), {"text": "y"}), (("",), {"text": "z"})]


def test_a_stream_keeps_captions_that_were_not_asked_for(tmp_path):
    (tmp_path / "d").mkdir()
    frame = pd.DataFrame({"img": [picture(7)], "text": ["t"], "caption": ["c"], "TEXT": ["C"]})
    frame.to_parquet(tmp_path / "d" / "a.parquet")
    columns = []
    for streaming in (False, True):
        source = hub(
            tmp_path / "d",
            caption_column="caption",
            streaming=streaming,
            spool=str(tmp_path / "spool"),
        )
        columns += [dict(candidate.columns) for candidate in source.candidates()]
    assert columns == [{"text": "t", "TEXT": "C"}] * 2


def test_what_cannot_be_opened_is_said(tmp_path):
    DatasetDict(train=table()).save_to_disk(tmp_path / "d")
    with pytest.raises(UserError, match=r"dataset\.split=val: it holds the splits train"):
        hub(tmp_path / "d", split="val")
    with pytest.raises(UserError, match=r"dataset\.path=.*gone cannot be opened"):
        hub(tmp_path / "gone")


# ---- the spool


def numbers(start, end=1200):
    for i in range(start, end):
        yield picture(i % 256), (f"caption {i}",), {"n": i}


@pytest.fixture
def stream(tmp_path):
    """A source of 1,200 samples that records from where it was begun and how far it was read."""
    begun, read = [], itertools.count()
    config = HubConfig(name="mine", reader="hub", path="a/b", spool=str(tmp_path), streaming=True)

    def begin(start):
        begun.append(start)
        for sample in numbers(start):
            next(read)
            yield sample

    return (
        (
            lambda limit=None: readers.take_subset(
                stream_cache.source(config, "state", begin), _limit(limit)
            )
        ),
        begun,
        read,
    )


def _limit(limit):
    return HubConfig(name="mine", reader="hub", path="a/b", limit=limit)


def test_a_stream_is_fetched_once_and_only_as_far_as_needed(stream):
    open_stream, begun, read = stream
    source = open_stream(limit=501)
    first = list(source.candidates())
    assert (begun, next(read)) == ([0], 1000)  # two tars
    assert [c.captions for c in first] == [(f"caption {i}",) for i in range(501)]
    assert [c.columns["n"] for c in first] == list(range(501))
    assert all(source.load(c.location) == picture(i % 256) for i, c in enumerate(first))
    whole = list(open_stream().candidates())
    assert begun == [0, 1000]
    assert (len(whole), whole[:501]) == (1200, first)
    assert list(open_stream().candidates()) == whole
    assert begun == [0, 1000]  # all is there: no stream was begun


def test_an_interrupted_stream_goes_on_where_it_stopped(tmp_path):
    config = HubConfig(name="mine", reader="hub", path="a/b", spool=str(tmp_path), streaming=True)

    def broken(start):
        yield from numbers(start, 700)
        raise ConnectionError("reset by peer")

    with pytest.raises(UserError, match=r"after 500 samples \(reset by peer\)"):
        list(stream_cache.source(config, "state", broken).candidates())
    assert [p.name for p in tmp_path.rglob("*.tar")] == ["00000.tar"]
    whole = stream_cache.source(config, "state", numbers)
    assert pairs(whole) == [(image, captions) for image, captions, _ in numbers(0)]


def test_a_stream_may_end_with_a_full_tar_or_at_once(tmp_path):
    config = HubConfig(name="mine", reader="hub", path="a/b", spool=str(tmp_path), streaming=True)
    assert (
        len(
            list(
                stream_cache.source(config, "state", lambda start: numbers(start, 500)).candidates()
            )
        )
        == 500
    )
    assert (
        len(
            list(
                stream_cache.source(
                    config, "state", lambda start: pytest.fail("ended")
                ).candidates()
            )
        )
        == 500
    )
    other = HubConfig(name="mine", reader="hub", path="a/c", spool=str(tmp_path), streaming=True)
    assert list(stream_cache.source(other, "state", lambda start: iter(())).candidates()) == []


def test_samples_of_different_revisions_are_never_mixed(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    options = {"streaming": True, "spool": str(tmp_path / "spool")}
    for number in (1, 2):
        frame = pd.DataFrame({"img": [picture(number)], "text": [f"t{number}"]})
        frame.to_parquet(folder / "a.parquet")
        os.utime(folder / "a.parquet", (number, number))
        if number == 1:
            first = pairs(hub(folder, **options))
            assert pairs(hub(folder, **options)) == first
    with pytest.raises(UserError, match="another revision"):
        hub(folder, **options)
    options["spool"] = str(tmp_path / "anew")
    assert pairs(hub(folder, **options)) == [(picture(2), ("t2",))]


def test_a_full_disk_is_not_the_stream_s_fault(tmp_path, monkeypatch):
    config = HubConfig(name="mine", reader="hub", path="a/b", spool=str(tmp_path), streaming=True)

    def full(tar, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stream_cache, "_add", full)
    with pytest.raises(OSError, match="No space left") as raised:
        list(stream_cache.source(config, "state", numbers).candidates())
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("streaming", [False, True])
def test_pictures_in_other_columns_are_left_out_and_noted(tmp_path, streaming):
    stored = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(2)]
    table = {"image": stored, "edges": stored, "frames": [stored, []], "text": ["one", "two"]}
    (tmp_path / "d").mkdir()
    pd.DataFrame({**table, "raw": [b"x", b"y"], "id": [1, 2]}).to_parquet(
        tmp_path / "d/train.parquet"
    )
    source = hub(tmp_path / "d", streaming=streaming, spool=str(tmp_path / "spool"))
    assert pairs(source) == [(picture(0), ("one",)), (picture(1), ("two",))]
    assert [dict(c.columns) for c in source.candidates()] == [{"id": 1}, {"id": 2}]
    assert "columns of images, audio, video or bytes, left out: 3, such as edges" in source.notes
