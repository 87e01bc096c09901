"""The published tables, built here in their own formats and read through their own YAML."""

import bz2
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from curate import readers
from curate.measures.decode import probe
from curate.pipeline.config import CurateConfig
from curate.readers.tables import column_roles
from curate.run.schema import UserError, to_dataclass

CONF = Path(__file__).resolve().parents[4] / "conf"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def read(name, path, images, *overrides):
    dataset = [f"dataset={name}", f"dataset.path='{path}'", f"dataset.images_dir='{images}'"]
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("curate", [*dataset, *overrides])
    return readers.read(to_dataclass(cfg, CurateConfig).dataset)


def pairs(source):
    return [(c.columns["url"], c.captions) for c in source.candidates()]


def test_cc3m_has_the_caption_first_and_cc12m_the_url(tmp_path, images):
    path = tmp_path / "Train_GCC-training.tsv"
    path.write_text('a "very" typical view\thttp://a/1.jpg\n"\thttp://a/2.jpg\n')
    expected = [("http://a/1.jpg", ('a "very" typical view',)), ("http://a/2.jpg", ('"',))]
    assert pairs(read("cc3m", path, images)) == expected
    with pytest.raises(UserError, match="caption first"):
        read("cc12m", path, images)
    path.write_text("caption\turl\n" + path.read_text())
    assert pairs(read("cc3m", path, images)) == expected
    assert pairs(read("cc12m", path, images)) == expected
    path.write_text("http://b/1.jpg\t<PERSON> at home\n")
    assert pairs(read("cc12m", path, images)) == [("http://b/1.jpg", ("<PERSON> at home",))]
    with pytest.raises(UserError, match="caption first"):
        read("cc3m", path, images)


def read_unquoted(text):
    known = column_roles.ColumnRoles("url", ("title",), None, {})
    columns = column_roles.url_decoded({"title": [text], "url": ["http://x/a+b%20c"]}, known)
    assert columns["url"] == ["http://x/a+b c"]
    return columns["title"][0]


def yfcc_line(photo, title, description, marker="0"):
    start = [
        "0",
        photo,
        "5e1f",
        "4@N00",
        "nick",
        "2004-01-01 00:00:00.0",
        "1073",
        "Canon+PowerShot",
    ]
    page = f"http://www.flickr.com/photos/4@N00/{photo}/"
    middle = [title, description, "tags", "", "-1.5", "", "16", page, f"http://farm4/{photo}_s.jpg"]
    licence = ["Attribution+License", "http://creativecommons.org/licenses/by/2.0/"]
    return "\t".join([*start, *middle, *licence, "5", "6", "se", "or", "jpg", marker])


def test_yfcc100m(tmp_path, images):
    lines = [
        yfcc_line(
            "11", "Caf%C3%A9+%26amp%3B+bar", "a+%3Ca+href%3D%22x%22%3Elink%3C%2Fa%3E%3Cbr%3Eb"
        ),
        yfcc_line("12", "a video", "", marker="1"),
        yfcc_line("13", "", ""),
        yfcc_line("14", "I+%3C3+you", "5+%3C+6+and+%3Cb"),
        yfcc_line("15", "cut", "off")[:40],
    ]
    path = tmp_path / "yfcc100m_dataset.bz2"
    path.write_bytes(bz2.compress("\n".join(lines).encode()))
    Image.new("RGB", (5, 4)).save(images / "11.png")
    source = read("yfcc100m", tmp_path / "yfcc100m_dataset*", images)
    first, empty, odd = source.candidates()
    assert first.key == "11"
    assert first.captions == ("Café & bar", "a link b")
    assert first.columns["url"] == "http://farm4/11_s.jpg"
    assert first.columns["licence"] == "Attribution License"
    assert first.columns["licence_url"] == "http://creativecommons.org/licenses/by/2.0/"
    assert first.columns["capture_device"] == "Canon PowerShot"
    assert probe(source.load(first.location)) == (5, 4, "PNG")
    assert empty.captions == ("",)
    assert odd.captions == ("I <3 you", "5 < 6 and <b")
    assert [
        read_unquoted(text) for text in ("rock%26notes", "Tom+%26copy+Jerry", "1%26%2343%3B1")
    ] == [*("rock&notes", "Tom &copy Jerry", "1+1")]
    assert any("marker 1: 1, such as yfcc100m_dataset.bz2:2" in note for note in source.notes)
    assert any("number of columns: 1" in note for note in source.notes)
    titles = read("yfcc100m", path, images, "dataset.caption_columns=[title]")
    assert next(titles.candidates()).captions == ("Café & bar",)


def test_laion_keeps_its_scores_under_names_of_their_own(tmp_path, images):
    row = {"URL": "http://a/1.jpg", "TEXT": "a cat", "WIDTH": 640.0, "HEIGHT": 480.0}
    row |= {"similarity": 0.28125, "LANGUAGE": "en", "LICENSE": "?", "NSFW": "UNLIKELY"}
    row |= {"hash": -(2**62) - 1, "punsafe": 0.25, "pwatermark": 0.5, "AESTHETIC_SCORE": 6.5}
    lost = dict.fromkeys(row) | {"hash": 7}
    path = tmp_path / "part-00000-c000.snappy.parquet"
    stray = pd.DataFrame([row, lost]).assign(__index_level_0__=[4, 9])
    stray.astype({"hash": "int64"}).to_parquet(path)
    first, second = read("laion5b", path, images).candidates()
    assert first.captions == ("a cat",)
    assert first.columns == {
        "url": "http://a/1.jpg",
        "source_width": 640,
        "source_height": 480,
        "source_similarity": 0.28125,
        "source_language": "en",
        "licence": "?",
        "source_nsfw": "UNLIKELY",
        "hash": -(2**62) - 1,
        "punsafe": 0.25,
        "pwatermark": 0.5,
        "aesthetic": 6.5,
    }
    assert isinstance(first.columns["source_width"], int)
    assert second.captions == ()
    assert second.columns == {"url": "", "hash": 7}


def test_laion400m_and_relaion(tmp_path, images):
    row = {"SAMPLE_ID": 5, "URL": "http://a/1.jpg", "TEXT": "", "similarity": 0.3}
    pd.DataFrame([row]).to_parquet(tmp_path / "laion.parquet")
    (only,) = read("laion400m", tmp_path / "laion.parquet", images).candidates()
    assert only.captions == ("",)
    assert only.columns["sample_id"] == 5
    assert only.key != "5"
    row = {"url": "http://a/1.jpg", "caption": "a", "similarity": 0.3, "punsafe": 0.1}
    pd.DataFrame([row]).to_parquet(tmp_path / "re.parquet")
    (tmp_path / ".part-0.parquet.crc").write_bytes(b"crc\0")
    (only,) = read("relaion", tmp_path / "re*", images).candidates()
    assert only.captions == ("a",)
    assert only.columns["source_similarity"] == 0.3


def test_laion_coco_has_several_captions_in_a_row(tmp_path, images):
    row = {
        "URL": "u",
        "TEXT": "alt",
        "all_captions": ["a", "b", "a"],
        "all_similarities": [0.3, 0.2],
    }
    pd.DataFrame([row]).to_parquet(tmp_path / "t.parquet")
    options = "dataset.caption_columns=[all_captions,TEXT]"
    (only,) = read("table", tmp_path / "t.parquet", images, options).candidates()
    assert only.captions == ("a", "b", "alt")
    assert only.columns["all_similarities"] == "[0.3, 0.2]"


def test_datacomp(tmp_path, images):
    uid = "000f1a" + "0" * 26
    row = {"uid": uid, "url": "u", "text": "a cat", "original_width": 640, "original_height": 480}
    row |= {"clip_b32_similarity_score": 0.25, "clip_l14_similarity_score": 0.125}
    row |= {"face_bboxes": [[0.0, 0.5, 1.0, 1.0]], "sha256": "ab"}
    pd.DataFrame([row]).to_parquet(tmp_path / "t.parquet")
    Image.new("RGB", (5, 4)).save(images / f"{uid}.png")
    source = read("datacomp", tmp_path, images)
    (only,) = source.candidates()
    assert only.key == uid
    assert only.columns == {
        "url": "u",
        "uid": uid,
        "source_width": 640,
        "source_height": 480,
        "clip_b32_similarity_score": 0.25,
        "clip_l14_similarity_score": 0.125,
        "face_bboxes": "[[0.0, 0.5, 1.0, 1.0]]",
        "source_sha256": "ab",
    }
    assert probe(source.load(only.location)) == (5, 4, "PNG")


def test_coyo_s_published_rows(images, shared):
    path = shared / "coyo_preview/coyo_readme_preview.csv"
    Image.new("RGB", (5, 4)).save(images / "4896263451343.png")
    source = read("coyo", path, images)
    first, *rest = source.candidates()
    table = pd.read_csv(path, dtype=str)
    assert [c.captions for c in (first, *rest)] == [(text,) for text in table["text"]]
    assert [c.key for c in (first, *rest)] == list(table["id"])
    assert probe(source.load(first.location)) == (5, 4, "PNG")
    assert all(not c.version for c in rest)
    scores = pd.to_numeric(pd.Series([c.columns["clip_similarity_vitb32"] for c in (first, *rest)]))
    assert list(scores) == list(table["clip_similarity_vitb32"].astype(float))
    assert "width" not in first.columns
    assert first.columns["source_width"] == "600"


def test_alt200m_is_a_table_of_urls_and_alt_texts(tmp_path, images):
    (tmp_path / "mine.tsv").write_text("http://a/1.jpg\ta cat\n")
    assert pairs(read("alt200m", tmp_path / "mine.tsv", images)) == [("http://a/1.jpg", ("a cat",))]


def test_a_table_s_columns_never_hide_the_ledger_s(tmp_path, images):
    names = ("url", "text", "status", "source_status", "image_url", "version", "key")
    values = ("u", "t", "success", "old", "v", "3", "k1")
    pd.DataFrame([dict(zip(names, values, strict=True))]).to_csv(tmp_path / "t.csv", index=False)
    (only,) = read("table", tmp_path / "t.csv", images).candidates()
    assert only.columns == {
        "url": "u",
        "source_status": "success",
        "source_source_status": "old",
        "image_url": "v",
        "source_version": "3",
        "source_key": "k1",
    }


def test_the_path_of_a_table_of_ones_own_has_to_be_given():
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("curate", ["dataset=table"])
    with pytest.raises(Exception, match=r"dataset\.path"):
        to_dataclass(cfg, CurateConfig)


@pytest.mark.parametrize(
    "override",
    ["dataset.file_type=xls", "dataset.columns=[a,a]", "dataset.caption_columns=[]"],
)
def test_values_out_of_range_are_refused(override):
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("curate", ["dataset=table", "dataset.path=x", override])
    with pytest.raises(UserError, match=r"dataset\.\w+=.*accepted"):
        to_dataclass(cfg, CurateConfig)
