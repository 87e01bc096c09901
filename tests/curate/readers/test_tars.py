"""WebDataset tars written by the standard library, by webdataset, and cut to pieces here."""

import gzip
import io
import json
import random
import tarfile

import pandas as pd
import pyarrow as pa
import pytest
import webdataset
from PIL import Image

from curate import readers
from curate.measures.decode import UnreadableImage, probe
from curate.readers.shards import ShardsConfig
from curate.readers.tars import BrokenTar, iter_samples, read_range
from curate.run.schema import UserError


def picture(seed=0):
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (seed, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def pack(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pack_samples(path, count):
    samples = {}
    for i in range(count):
        samples |= {f"{i:04d}.png": picture(i), f"{i:04d}.txt": f"caption {i}"}
    return pack(path, samples)


def open_shards(path, **options):
    given = path if isinstance(path, list) else str(path)
    return readers.read(ShardsConfig(name="mine", reader="shards", path=given, **options))


def found(path, **options):
    return list(open_shards(path, **options).candidates())


# ---- the tar


def test_keys_end_at_the_first_dot_and_keep_their_folder(tmp_path):
    long = "d" * 120
    names = [
        "./x.v1/a.b.JPG",
        "x.v1/a.json",
        f"{long}/b.png",
        "c.png",
        "._c.png",
        "README",
        "__meta__",
    ]
    path = pack(tmp_path / "a.tar", {name: name for name in names})
    samples = dict(iter_samples(path))
    assert {key: set(members) for key, members in samples.items()} == {
        "x.v1/a": {"b.jpg", "json"},
        f"{long}/b": {"png"},
        "c": {"png"},
    }
    assert read_range(path, *samples["x.v1/a"]["b.jpg"]) == b"./x.v1/a.b.JPG"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_ranges_agree_with_tarfile_and_keys_with_webdataset(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(50):
            size = draw.choice([1, 511, 512, 513, 5000])
            writer.write({"__key__": f"k/{i:03d}", "bin": draw.randbytes(size), "a.txt": str(i)})
    ours = {
        f"{key}.{extension}": read_range(path, *place)
        for key, members in iter_samples(path)
        for extension, place in members.items()
    }
    with tarfile.open(path) as tar:
        theirs = {member.name: tar.extractfile(member).read() for member in tar}
    assert ours == theirs
    keys = [s["__key__"] for s in webdataset.WebDataset(str(path), shardshuffle=False)]
    assert [key for key, _ in iter_samples(path)] == keys


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png", "a.txt"],
        ["a.png", "a.txt", "a.png"],
        ["a.png", "a.txt", "a.png", "a.txt"],  # whose would a third member be?
        ["a.png", "a.txt", "b.png", "a.mask.png", "a.mask.json"],
        ["a.0.png", "a.0.txt", "b.png", "a.1.png", "a.1.txt"],
        ["a.png", "b.png", "a.png", "a.txt"],
        ["a.txt", "b.png", "a.txt", "a.json"],
    ],
)
def test_samples_must_be_whole_and_single(tmp_path, names):
    path = tmp_path / "mixed.tar"
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match=r"mixed\.tar.*'a'"):
        list(iter_samples(path))


def test_whole_samples_may_share_a_key(tmp_path):
    path = tmp_path / "appended.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "a.txt", "b.png", "a.jpg", "a.json"):
            tar.addfile(tarfile.TarInfo(name))
    found = [(key, sorted(members)) for key, members in iter_samples(path)]
    assert found == [("a", ["png", "txt"]), ("b", ["png"]), ("a", ["jpg", "json"])]


def test_tars_one_after_another_in_a_file_are_all_read(tmp_path):
    one, other = pack_samples(tmp_path / "one.tar", 2), tmp_path / "other.tar"
    pack(other, {"c.png": b"a picture", "c.txt": b"a caption"})
    both = tmp_path / "both.tar"
    both.write_bytes(one.read_bytes() + other.read_bytes() + b"\n")
    samples = list(iter_samples(both))
    assert samples[:2] == list(iter_samples(one))
    [(key, members)] = samples[2:]
    assert key == "c"
    assert read_range(both, *members["png"]) == b"a picture"


def test_a_tar_cut_anywhere_gives_what_is_whole(tmp_path):
    path = pack_samples(tmp_path / "whole.tar", 3)
    data, samples = path.read_bytes(), list(iter_samples(path))
    ends = [max(offset + size for offset, size in members.values()) for _, members in samples]
    cut = tmp_path / "cut.tar"
    for length in range(512, ends[-1] + 1, 97):
        cut.write_bytes(data[:length])
        given, broken = [], ""
        try:
            for sample in iter_samples(cut):
                given.append(sample)  # noqa: PERF402 (what came before the error counts)
        except BrokenTar as error:
            broken = str(error)
        complete = sum(end <= length for end in ends)
        if broken:
            assert given == samples[: len(given)]
            assert complete - 1 <= len(given) <= complete
        else:  # cut between two members: nothing tells that something is missing
            assert length % tarfile.BLOCKSIZE == 0 or length in ends
            assert given[:complete] == samples[:complete]


def test_damage_in_the_middle_is_not_the_end(tmp_path):
    path = pack_samples(tmp_path / "a.tar", 4)
    data, samples = bytearray(path.read_bytes()), list(iter_samples(path))
    header = samples[2][1]["png"][0] - tarfile.BLOCKSIZE
    data[header : header + 512] = b"\xff" * 512
    path.write_bytes(data)
    given = iter_samples(path)
    assert next(given) == samples[0]
    with pytest.raises(BrokenTar, match=f"byte {header}"):
        list(given)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.size": "x", "GNU.sparse.map": "0,1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"size": "-1536"},
        {"size": "9" * 30},
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_headers_without_sense_are_damage(tmp_path, headers, place):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(2):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = 600
            info.pax_headers = headers if i == place else {}
            tar.addfile(info, io.BytesIO(b"?" * 600))
    with pytest.raises(BrokenTar, match=r"damaged|cut off"):
        list(iter_samples(path))


def test_a_chain_of_headers_is_damage(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) * 5000)
    with pytest.raises(BrokenTar, match="damaged"):
        list(iter_samples(path))


# ---- the data set


def test_captions_and_columns_of_a_sample(tmp_path):
    meta = {
        "caption": "from json",
        "url": "http://a/b",
        "key": "7",
        "punsafe": 0.5,
        "exif": {"Make": "x"},
        "group": "mine",
        "sharp": True,
        "license": None,
    }
    listed = {"captions": ["best", "worse", "best"], "title": "no"}
    pack(
        tmp_path / "s.tar",
        {
            **{"a.png": picture(), "a.json": json.dumps(meta)},
            **{"b.png": picture(), "b.json": json.dumps(meta), "b.txt": " from \t text "},
            **{"c.png": picture(), "c.json": json.dumps(listed), "c.txt": "best"},
            **{"d.png": picture(), "d.cls": "3\n"},
            **{"e.png": picture(), "e.json": "[1]"},
            **{"ee.png": picture(), "ee.json": "[" * 200_000},
            **{"eee.png": picture(), "eee.json": '{"a":' + "[" * 400 + "]" * 400 + "}"},
            "f.txt": "no picture",
            **{"g.png": picture(), "g.json": '{"text": "lone \\ud83d surrogate"}'},
        },
    )
    source = open_shards(tmp_path)
    a, b, c, d, e, _, _, f, g = source.candidates()
    assert a.key == "s--a"
    assert [x.captions for x in (a, b, c, d, e)] == [
        ("from json",), ("from text",), ("best", "worse"), (), ()
    ]  # fmt: skip
    assert g.captions == ("lone ? surrogate",)
    assert a.columns == {
        "url": "http://a/b", "source_key": "7", "punsafe": 0.5, "exif": '{"Make": "x"}',
        "source_group": "mine", "sharp": True,
    }  # fmt: skip
    assert b.columns["source_caption"] == "from json"  # the text member served
    assert c.columns == {"title": "no"}
    assert d.columns == {"cls": "3"}
    assert source.load(b.location) == picture()
    with pytest.raises(UnreadableImage, match="missing file"):
        source.load(f.location)
    assert source.notes == ["JSON members that are not an object, left out: 3, such as s: e"]
    assert found(tmp_path, caption_field="url")[0].captions == ("http://a/b",)


def test_only_the_field_that_served_as_caption_is_no_column(tmp_path):
    meta = {"text": "served", "caption": "other", "TEXT": None, "alt": "served"}
    listed = {"captions": ["served"], "text": "other"}
    pack(
        tmp_path / "s.tar",
        {
            **{"a.png": picture(), "a.json": json.dumps(meta)},
            **{"b.png": picture(), "b.json": json.dumps(listed)},
            **{
                "c.png": picture(),
                "c.txt": "served",
                "c.json": '{"caption": " served", "text": 7}',
            },
        },
    )
    a, b, c = found(tmp_path)
    assert {x.captions for x in (a, b, c)} == {("served",)}
    assert a.columns == {"source_caption": "other", "alt": "served"}
    assert b.columns == {"text": "other"}
    assert c.columns == {"text": 7}


def test_numbers_that_are_not_finite_are_missing(tmp_path):
    meta = '{"caption": NaN, "text": "t", "a": NaN, "b": 1e999, "c": {"d": [-Infinity, 1.5]}, "e": 0.5}'
    pack(tmp_path / "s.tar", {"a.png": picture(), "a.json": meta})
    (candidate,) = found(tmp_path)
    assert candidate.captions == ("t",)
    assert candidate.columns == {"c": '{"d": [null, 1.5]}', "e": 0.5}


def test_what_this_program_wrote_keeps_its_keys_and_columns(tmp_path):
    from curate.readers.candidate import key_of

    key = key_of("x/a")  # a key with two dashes must not be taken for a name with a folder
    meta = {"captions": ["best", "other"], "key": key, "source_key": "7", "similarity": [0.3, 0.2]}
    members = {"png": picture(), "json": json.dumps(meta), "txt": "best"}
    pack(tmp_path / "train/000000.tar", {f"{key}.{name}": data for name, data in members.items()})
    (candidate,) = found(tmp_path, unique_keys=True)
    assert (candidate.key, candidate.captions) == (key, ("best", "other"))
    assert candidate.columns == {
        "source_key": "7", "source_source_key": key, "source_similarity": "[0.3, 0.2]"
    }  # fmt: skip


def test_several_images_of_a_sample(tmp_path):
    pack(
        tmp_path / "s.tar",
        {
            **{"a.png": picture(1), "a.detail.png": picture(2), "a.txt": "one"},
            **{"b.0.png": picture(3), "b.1.png": picture(4), "b.txt": "all", "b.1.txt": "own"},
        },
    )
    source = open_shards(tmp_path)
    got = {c.captions: source.load(c.location) for c in source.candidates()}
    assert got == {("one",): picture(1), ("all",): picture(3), ("own",): picture(4)}
    assert len({c.key for c in source.candidates()}) == 3
    assert source.notes == ["further images of a sample, left out: 1, such as s: a.detail.png"]


def test_samples_that_share_a_key_are_told_apart_and_counted(tmp_path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for key, i in (("a", 1), ("b", 2), ("a", 3)):
            for name, content in ((f"{key}.png", picture(i)), (f"{key}.txt", b"caption %d" % i)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    source = open_shards(path)
    got = {c.key: (c.captions, source.load(c.location)) for c in source.candidates()}
    assert list(got.values()) == [((f"caption {i}",), picture(i)) for i in (1, 2, 3)]
    assert source.notes == [
        "samples with the key of an earlier one in the same tar: 1, such as s: a"
    ]


def test_an_object_is_no_caption_and_stays_a_column(tmp_path):
    notes = {
        "a.json": {"text": {"en": "x"}, "caption": "a real caption"},
        "b.json": {"caption": {"en": "x"}},
        "c.json": {"captions": [{"raw": "x"}], "title": "a title"},
    }
    members = {name: json.dumps(content) for name, content in notes.items()}
    members |= {f"{key}.png": picture(i) for i, key in enumerate("abc")}
    pack(tmp_path / "s.tar", {**dict(sorted(members.items())), "d.png": picture(4)})
    a, b, c, _ = found(tmp_path)
    assert (a.captions, a.columns["text"]) == (("a real caption",), '{"en": "x"}')
    assert (b.captions, b.columns["source_caption"]) == ((), '{"en": "x"}')
    assert c.captions == ("a title",)


def test_keys_are_unique_over_shards_and_do_not_depend_on_their_neighbours(tmp_path):
    for folder in ("x", "y"):
        for shard in ("00000", "00001"):
            pack_samples(tmp_path / folder / f"{shard}.tar", 3)
    every = [c.key for c in found(tmp_path)]
    assert len(set(every)) == 12
    assert every[0] == "x--00000--0000"
    pack_samples(tmp_path / "z.tar", 1)
    assert set(every) < {c.key for c in found(tmp_path)}
    assert [c.key for c in found(tmp_path / "x" / "00000.tar", unique_keys=True)] == [
        "0000", "0001", "0002"
    ]  # fmt: skip
    with pytest.raises(UserError, match="both called 00000"):
        found([str(tmp_path / "x/00000.tar"), str(tmp_path / "y/00000.tar")])


def test_img2datasets_failed_rows_are_accounted_for(tmp_path):
    meta = {"caption": "a", "key": "000010000", "status": "success"}
    pack(tmp_path / "00001.tar", {"000010000.png": picture(), "000010000.json": json.dumps(meta)})
    rows = {
        "key": ["000010000", "000010001", "000010002"],
        "caption": ["a", "b", None],
        "url": ["u0", "u1", "u2"],
        "status": ["success", "failed_to_download", "failed_to_resize"],
        "error_message": [None, "HTTP Error 404", "too small"],
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "00001.parquet")
    source = open_shards(tmp_path)
    here, lost, small = source.candidates()
    assert here.key == "000010000"  # img2dataset's own, which stays
    assert (lost.key, lost.captions) == ("000010001", ("b",))
    assert (lost.columns["error_message"], lost.columns["url"]) == ("HTTP Error 404", "u1")
    assert small.captions == ()
    for candidate in (lost, small):
        with pytest.raises(UnreadableImage, match="missing file"):
            source.load(candidate.location)


@pytest.mark.parametrize("damage", [bytes.swapcase, lambda whole: b"PAR1" + bytes(60) + whole[64:]])
def test_a_damaged_table_beside_a_shard_is_counted(tmp_path, damage):
    for name in "ab":
        pack_samples(tmp_path / f"{name}.tar", 1)
    table = tmp_path / "a.parquet"
    pd.DataFrame({"key": [f"{n:09d}" for n in range(99)]}).to_parquet(table)
    table.write_bytes(damage(table.read_bytes()))
    source = open_shards(tmp_path)
    assert [c.key for c in source.candidates()] == ["a--0000", "b--0000"]
    (note,) = source.notes
    assert note.startswith(f"parquet files beside shards that cannot be read: 1, such as {table} (")


def test_any_of_arrow_s_errors_is_a_damaged_table(tmp_path, monkeypatch):
    pack_samples(tmp_path / "a.tar", 1)
    pd.DataFrame({"key": ["1"]}).to_parquet(tmp_path / "a.parquet")

    def refuse(path):
        raise pa.ArrowNotImplementedError("a codec of tomorrow")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    source = open_shards(tmp_path)
    assert len(list(source.candidates())) == 1
    assert "a codec of tomorrow" in source.notes[0]


def test_a_truncated_shard_is_read_up_to_the_damage_and_noted_once_a_pass(tmp_path):
    path = pack_samples(tmp_path / "a.tar", 3)
    path.write_bytes(path.read_bytes()[: list(iter_samples(path))[2][1]["png"][0] + 5])
    pack_samples(tmp_path / "b.tar", 1)
    source = open_shards(tmp_path)
    for _ in range(2):
        assert [c.key for c in source.candidates()] == ["a--0000", "a--0001", "b--0000"]
        (note,) = source.notes
        assert note.startswith("damaged shards, read up to the damage: 1, such as")
        assert "a.tar after 2 samples, cut off within 0002.png" in note


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "unzstd"),
        (gzip.compress(b"x" * 9, mtime=0), "not a tar"),
        (b"PAR1" + bytes(600), "parquet"),
        (b"", "empty file"),
        (b"\x01" * 600, "not a tar"),
        (b'{"a": 1}', "not a tar"),
    ],
)
def test_what_is_no_tar_is_named(tmp_path, content, says):
    pack_samples(tmp_path / "a.tar", 1)
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(UserError, match=rf"b\.tar is .*{says}"):
        open_shards(tmp_path)


def test_every_way_to_name_shards(tmp_path, monkeypatch):
    for i in (0, 1, 3):
        pack_samples(tmp_path / f"d/{i:05d}.tar", 1)
    (tmp_path / "d/00009.tar").mkdir()
    every = [c.key for c in found(tmp_path / "d")]
    assert every == ["00000--0000", "00001--0000", "00003--0000"]
    assert [c.key for c in found(f"{tmp_path}/d/0000*.tar")] == every
    assert [c.key for c in found(f"{tmp_path}/*/00001.tar")] == ["d--00001--0000"]
    assert [c.key for c in found([f"{tmp_path}/d/00003.tar", f"{tmp_path}/d/00000.tar"])] == [
        every[2], every[0]
    ]  # fmt: skip
    source = open_shards(f"{tmp_path}/d/{{00000..00003}}.tar")
    assert [c.key for c in source.candidates()] == every
    assert "missing shards of a range: 1" in source.notes[0]
    assert "00002.tar" in source.notes[0]
    with pytest.raises(FileNotFoundError, match=r"looked for .*00007"):
        found(f"{tmp_path}/d/{{00007..00009}}.tar")
    with pytest.raises(UserError, match="not closed"):
        found(f"{tmp_path}/d/{{00007..00009.tar")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.parquet").write_text("")
    with pytest.raises(UserError, match=r"no \.tar, but \.parquet"):
        found(tmp_path / "p")
    monkeypatch.setattr("sys.argv", ["curate", "dataset.path=a.tar", "dataset.path=b.tar"])
    with pytest.raises(UserError, match="Quote them"):
        found(tmp_path / "d")


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    import pickle

    data = pickle.dumps(Bomb())
    members = dict.fromkeys(["a.pyd", "a.pkl", "a.pickle", "a.pth", "a.npy"], data)
    pack(tmp_path / "s.tar", {"a.png": picture(), **members})
    (candidate,) = found(tmp_path)
    assert (candidate.captions, dict(candidate.columns)) == ((), {})


def test_real_cc12m(shared):
    source = open_shards(shared / "cc12m_wds")
    candidates = list(source.candidates())
    assert len(candidates) == 32
    assert all(len(c.captions) == 1 and c.captions[0] for c in candidates)
    for c in candidates:
        width, height, kind = probe(source.load(c.location))
        assert (width, height) == (c.columns["source_width"], c.columns["source_height"])
        assert kind == "JPEG"
    assert source.notes == []


def test_a_shard_that_is_replaced_after_its_places_were_read_is_refused(tmp_path):
    path = pack_samples(tmp_path / "0.tar", 1)
    source = open_shards(path)
    (place,) = [each.location for each in source.candidates()]
    assert source.load(place) == picture(0)
    other = pack(tmp_path / "part", {"0000.png": picture(1), "0000.txt": "caption 0"})
    other.replace(path)
    assert len([*source.candidates()]) == 1  # a further pass does not make the places good
    with pytest.raises(UserError, match="was replaced while its pictures were read"):
        source.load(place)
