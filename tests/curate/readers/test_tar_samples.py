"""Samples of tars whose texts, links, names and compression are not as WebDataset's tools write them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pandas as pd
import pytest
from PIL import Image

from curate import readers
from curate.measures.unreadable import UnreadableImage
from curate.readers.shards import ShardsConfig
from curate.run.schema import UserError


def picture(seed=0, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (seed, 0, 0)).save(stream, kind)
    return stream.getvalue()


def pack(path, members):
    """Write a tar of names and contents; a content ``(type, target)`` is a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
                continue
            data = content if isinstance(content, bytes) else content.encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def open_shards(path, **options):
    given = str(path)
    spool = str(path.parent / "spool") if path.is_file() else str(path / "spool")
    config = ShardsConfig(name="mine", reader="shards", path=given, spool=spool, **options)
    return readers.read(config)


def captions_in(path, **options):
    source = open_shards(path, **options)
    found = {c.key.partition("--")[2]: c.captions for c in source.candidates()}
    return found, source.notes


# ---- which text


def test_one_picture_and_one_text_belong_together(tmp_path):
    members = {
        **{"a.jpg": picture(1), "a.jpg.txt": "whole name"},
        **{"b.v2.png": picture(2), "b.en.caption": "middle parts"},
        **{"c.png": picture(3), "c.png.json": '{"caption": "whole name of JSON"}'},
        **{"d.0.png": picture(4), "d.0.png.txt": "zero", "d.1.png": picture(5), "d.1.txt": "one"},
    }
    found, notes = captions_in(pack(tmp_path / "s.tar", members))
    assert sorted(found.values()) == [
        ("middle parts",), ("one",), ("whole name",), ("whole name of JSON",), ("zero",)
    ]  # fmt: skip
    assert notes == []


def test_texts_that_serve_no_picture_are_noted_for_what_they_are(tmp_path):
    members = {
        **{"a.png": picture(1), "a.txt": "used", "a.caption": "beside"},
        **{"b.png": picture(2), "b.en.txt": "which", "b.de.txt": "of two?"},
        **{
            "c.png": picture(3),
            "c.detail.png": picture(4),
            "c.detail.txt": "of the detail",
            "c.txt": "c",
        },
    }
    found, notes = captions_in(pack(tmp_path / "s.tar", members))
    assert found == {"a": ("used",), "b": (), "c": ("c",)}
    assert notes == [
        "text members beside another one of the same image, which is used: 1, such as s: a.caption",
        "text members that belong to no image: 3, such as s: b.de.txt",
        "further images of a sample, left out: 1, such as s: c.detail.png",
    ]


def test_an_empty_text_hides_no_caption(tmp_path):
    record = json.dumps({"caption": "the JSON knows", "url": "u"})
    members = {
        **{"a.png": picture(1), "a.txt": "", "a.json": record},
        **{"b.png": picture(2), "b.txt": " \n", "b.caption": "second", "b.json": record},
        **{"c.png": picture(3), "c.txt": "", "c.json": '{"url": "u"}'},
        **{"d.0.png": picture(4), "d.0.txt": "", "d.1.png": picture(5), "d.txt": "shared"},
    }
    found, _ = captions_in(pack(tmp_path / "s.tar", members))
    assert list(found.values()) == [
        ("the JSON knows",), ("second",), ("",), ("shared",), ("shared",)
    ]  # fmt: skip


def test_the_first_line_counts_unless_the_json_has_them_all(tmp_path):
    members = {
        **{"a.png": picture(1), "a.txt": "\nfirst\nsecond"},
        **{
            "b.png": picture(2),
            "b.txt": "first\nsecond",
            "b.json": '{"caption": "first\\nsecond"}',
        },
    }
    found, notes = captions_in(pack(tmp_path / "s.tar", members))
    assert found == {"a": ("first",), "b": ("first second",)}
    assert notes == [
        "text members of several lines, of which only the first is used: 1, such as s: a"
    ]


# ---- text in other encodings


@pytest.mark.parametrize(
    ("encoding", "captions"),
    [
        ("cp1252", ["ein schöner Tag", "zwei Mädchen", "drei Bäume", "fünf Äpfel", "größer"]),
        ("shift_jis", ["猫がいる", "テーブルの上の赤いもの", "東京タワーの夜景", "赤い花"]),
        ("gbk", ["只有中文的说明", "桌子上的红色东西", "一只猫坐在垫子上", "天上的白云"]),
    ],
)
def test_texts_of_one_encoding_are_read_as_written(tmp_path, encoding, captions):
    members = {}
    for number, caption in enumerate(captions):
        text = json.dumps({"caption": caption}, ensure_ascii=False) if number % 2 else caption
        name = f"{number}.json" if number % 2 else f"{number}.txt"
        members |= {f"{number}.png": picture(number), name: text.encode(encoding)}
    found, notes = captions_in(pack(tmp_path / "s.tar", members))
    assert list(found.values()) == [(caption,) for caption in captions]
    (note,) = notes
    assert f"{len(captions)}, such as s: 0.txt" in note


def test_how_texts_are_cut_into_tars_does_not_decide_their_encoding(tmp_path):
    captions = ["ein schöner Tag", "zwei Mädchen", "drei Bäume", "fünf Äpfel", "größer"]
    for number, caption in enumerate(captions):
        members = {f"{number}.png": picture(number), f"{number}.txt": caption.encode("cp1252")}
        pack(tmp_path / f"{number}.tar", members)
    found, notes = captions_in(tmp_path)
    assert [*found.values()] == [(caption,) for caption in captions]
    assert len(notes) == 1
    assert notes[0].startswith("text members read as cp1252")


def test_text_in_no_certain_encoding_is_noted_until_it_is_named(tmp_path):
    members = {"a.png": picture(), "a.txt": "кот".encode("koi8-r")}
    path = pack(tmp_path / "s.tar", members)
    found, (note,) = captions_in(path)
    assert "\ufffd" in found["a"][0]
    assert "in no encoding that is certain" in note
    assert captions_in(path, encoding="koi8-r")[0] == {"a": ("кот",)}
    members["a.txt"] = "\ufeffa \ufeffcat".encode("utf-16")
    assert captions_in(pack(path, members))[0] == {"a": ("a cat",)}
    with pytest.raises(UserError, match=r"dataset\.encoding=no-such"):
        open_shards(path, encoding="no-such")


# ---- links


def test_links_inside_the_tar_are_read_through_and_others_are_named(tmp_path):
    hard, symbolic = tarfile.LNKTYPE, tarfile.SYMTYPE
    members = {
        **{"./x/a.png": picture(1), "x/a.txt": "first"},
        **{"x/b.png": (hard, "x/a.png"), "x/b.txt": (hard, "x/a.txt")},
        **{"x/c.png": (symbolic, "a.png"), "x/c.txt": (symbolic, "../x/b.txt")},
        **{"x/d.png": (symbolic, "../../etc/passwd"), "x/d.txt": "outside"},
        **{"x/e.png": (symbolic, "e.png"), "x/e.txt": (symbolic, "/etc/hostname")},
    }
    source = open_shards(pack(tmp_path / "s.tar", members))
    *inside, d, e = source.candidates()
    assert [c.captions for c in inside] == [("first",)] * 3
    assert [source.load(c.location) for c in inside] == [picture(1)] * 3
    assert len({c.key for c in inside}) == 3
    assert (d.captions, e.captions) == (("outside",), ())
    for outside in (d, e):
        with pytest.raises(UnreadableImage, match="link"):
            source.load(outside.location)


# ---- names without a suffix


def test_a_picture_without_a_suffix_is_known_by_its_bytes(tmp_path):
    members = {
        **{"0001": picture(1, "JPEG"), "0001.txt": "one"},
        **{"0002.image": picture(2), "0002.json": '{"caption": "two"}'},
        **{"README": "text", "0003.txt": "three", "0003": picture(3, "WEBP")},
        **{"0004": picture(4)},
        **{"0005": "no picture", "0005.txt": "five"},
        **{"0006.png": picture(6), "NOTES": "between", "0006.txt": "six", "0006": picture(7)},
        **{"0007.a": picture(8), "0007.b": picture(9), "0007.txt": "which?"},
    }
    source = open_shards(pack(tmp_path / "s.tar", members))
    found = {c.captions: c.location and source.load(c.location) for c in source.candidates()}
    assert found == {
        ("one",): picture(1, "JPEG"),
        ("two",): picture(2),
        ("three",): picture(3, "WEBP"),
        ("five",): "",
        ("six",): picture(6),
        ("which?",): "",
    }


def test_jfif_and_apng_are_pictures(tmp_path):
    members = {"a.jfif": picture(1, "JPEG"), "a.txt": "one", "b.apng": picture(2), "b.txt": "two"}
    source = open_shards(pack(tmp_path / "s.tar", members))
    assert [len(source.load(c.location)) > 0 for c in source.candidates()] == [True, True]


# ---- compressed tars

COMPRESS = {".tar.gz": gzip, ".tgz": gzip, ".tar": gzip, ".tar.bz2": bz2, ".tar.xz": lzma}


def samples(count):
    return {
        name: content
        for i in range(count)
        for name, content in ((f"{i}.png", picture(i)), (f"{i}.txt", f"caption {i}"))
    }


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_tars_are_unpacked_once(tmp_path, suffix):
    plain = pack(tmp_path / "plain.tar", samples(3))
    path = tmp_path / "d" / f"s{suffix}"
    path.parent.mkdir()
    path.write_bytes(COMPRESS[suffix].compress(plain.read_bytes()))
    for _ in range(2):
        source = open_shards(tmp_path / "d")
        found = {c.captions[0]: source.load(c.location) for c in source.candidates()}
        assert found == {f"caption {i}": picture(i) for i in range(3)}
        assert [c.key for c in source.candidates()] == ["s--0", "s--1", "s--2"]
        assert len(source.notes) == 1
        assert "1, such as" in source.notes[0]
        (copy,) = (tmp_path / "d" / "spool/.plain").iterdir()
    path.write_bytes(COMPRESS[suffix].compress(pack(plain, samples(2)).read_bytes()))
    source = open_shards(tmp_path / "d")
    assert [source.load(c.location) for c in source.candidates()] == [picture(0), picture(1)]
    (other,) = (tmp_path / "d" / "spool/.plain").iterdir()
    assert other != copy


def test_pictures_of_a_compressed_tar_are_there_before_any_pass(tmp_path):
    plain = pack(tmp_path / "plain.tar", samples(3))
    path = tmp_path / "s.tgz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    location = [c.location for c in open_shards(path).candidates()][1]
    for copy in (tmp_path / "spool/.plain").iterdir():
        copy.unlink()
    assert open_shards(path).load(location) == picture(1)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz"])
def test_a_cut_compressed_tar_is_read_up_to_the_damage_every_time(tmp_path, suffix):
    plain = pack(tmp_path / "plain.tar", samples(1000))
    path = tmp_path / f"s{suffix}"
    whole = COMPRESS[suffix].compress(plain.read_bytes())
    path.write_bytes(whole[: len(whole) - len(whole) // 4])
    for _ in range(2):
        source = open_shards(path)
        count = len(list(source.candidates()))
        assert 1 < count < 1000
        assert any(
            note.startswith("damaged shards, read up to the damage: 1") for note in source.notes
        )


def test_a_compressed_file_that_is_no_tar_is_named(tmp_path):
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(b"words" * 500))
    with pytest.raises(UserError, match=r"s\.tar\.gz is not a tar"):
        open_shards(tmp_path / "s.tar.gz")


def test_a_compressed_tar_of_which_nothing_is_left_is_named(tmp_path):
    whole = bz2.compress(pack(tmp_path / "plain.tar", samples(3)).read_bytes())
    (tmp_path / "s.tar.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"s\.tar\.bz2 is compressed by bzip2, and nothing"):
        open_shards(tmp_path / "s.tar.bz2")


def test_a_tar_and_its_compressed_copy_are_not_read_as_two(tmp_path):
    plain = pack(tmp_path / "s.tar", samples(1))
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserError, match="both called s; remove one"):
        open_shards(tmp_path)


# ---- the table beside a tar


def test_a_table_beside_a_tar_that_keeps_its_folder_counts_each_pair_once(tmp_path):
    members = {f"00000/{name}": content for name, content in samples(3).items()}
    pack(tmp_path / "00000.tar", members)
    table = {"key": [str(i) for i in range(4)], "caption": [f"caption {i}" for i in range(4)]}
    pd.DataFrame(table).to_parquet(tmp_path / "00000.parquet")
    candidates = list(open_shards(tmp_path).candidates())
    assert [bool(c.location) for c in candidates] == [True, True, True, False]
    assert candidates[-1].captions == ("caption 3",)


def test_the_table_beside_a_compressed_tar_is_found(tmp_path):
    plain = pack(tmp_path / "plain.tar", samples(1))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.b.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pd.DataFrame({"key": ["0", "1"], "caption": ["", "lost"]}).to_parquet(
        tmp_path / "d/a.b.parquet"
    )
    assert [c.captions for c in open_shards(tmp_path / "d").candidates()] == [
        ("caption 0",), ("lost",)
    ]  # fmt: skip
