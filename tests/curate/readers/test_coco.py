"""COCO: small files written here, and the real ones where they are at hand."""

import json
import shutil

import pytest
from PIL import Image

from curate import readers
from curate.measures.decode import decode, probe
from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.coco import CocoConfig
from curate.run.schema import UserError


def candidates_of(source):
    return list(source.candidates())


def coco(root, **options):
    config = CocoConfig(name="coco", reader="coco", root=str(root), **options)
    return readers.read(config)


@pytest.fixture
def small_coco(tmp_path):
    content = {
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://by/2.0"}],
        "images": [
            {"id": 9, "file_name": "COCO_val2014_9.jpg", "license": 4, "coco_url": "http://c/9"},
            {"id": 3, "file_name": "COCO_val2014_3.jpg"},
        ],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "A cat.\n"},
            {"image_id": 3, "id": 2, "caption": "a  dog"},
            {"image_id": 9, "id": 3, "caption": "A cat."},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2014.json").write_text(json.dumps(content))
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "val2014" / "COCO_val2014_9.jpg")
    return tmp_path


def test_coco_keeps_every_caption_and_the_licence(small_coco):
    source = coco(small_coco)
    dog, cat = source.candidates()
    assert (cat.key, cat.captions) == ("val2014-000000000009", ("A cat.", "A cat."))
    assert cat.columns["licence"] == "Attribution License"
    assert (cat.columns["url"], cat.columns["source_split"]) == ("http://c/9", "val2014")
    assert cat.columns["group"] == "coco-9"
    assert source.notes == []
    assert probe(source.load(cat.location)) == (5, 4, "JPEG")
    assert dog.captions == ("a dog",)
    with pytest.raises(UnreadableImage, match="missing file"):
        source.load(dog.location)


def test_coco_captions_of_unlisted_images_are_unreadable_not_gone(small_coco):
    path = small_coco / "annotations" / "captions_val2014.json"
    content = json.loads(path.read_bytes())
    content["annotations"].append({"image_id": 5, "id": 4, "caption": "A lost bird."})
    path.write_text(json.dumps(content))
    source = coco(small_coco)
    _, lost, _ = source.candidates()
    assert (lost.key, lost.captions) == ("val2014-000000000005", ("A lost bird.",))
    with pytest.raises(UnreadableImage, match="image id is not in images"):
        source.load(lost.location)


def rewritten(root, change):
    """The caption file, after ``change`` has been at its content."""
    path = root / "annotations" / "captions_val2014.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("of", "record", "says"),
    [
        ("annotations", {"image_id": 9, "bbox": [0, 0, 1, 1]}, "lacks 'caption'"),
        ("annotations", {"caption": "a cat"}, "lacks 'image_id'"),
        ("annotations", {"image_id": None, "caption": "a cat"}, "NoneType"),
        ("annotations", "a cat", "another form"),
        ("images", {"file_name": "a.jpg"}, "lacks 'id'"),
        ("images", {"id": 7}, "lacks 'file_name'"),
        ("images", {"id": "seven", "file_name": "a.jpg"}, "seven"),
        ("images", {"id": 7, "file_name": None}, "NoneType"),
        ("licenses", {"name": "CC"}, "lacks 'id'"),
    ],
)
def test_coco_records_that_are_none_are_named(small_coco, of, record, says):
    path = rewritten(small_coco, lambda content: content[of].append(record))
    with pytest.raises(UserError, match=f"{path} is not a COCO caption file: .*'{of}' .*{says}"):
        coco(small_coco)


def test_a_null_caption_is_an_empty_one(small_coco):
    """So that it is dropped by name, and the image's others stay."""
    null = {"image_id": 9, "caption": None}
    rewritten(small_coco, lambda content: content["annotations"].append(null))
    _, cat = coco(small_coco).candidates()
    assert cat.captions == ("A cat.", "A cat.", "")


def with_pictures(root, records):
    """The COCO at ``root`` with further images; ``records`` are file names as listed."""
    images = [{"id": 20 + n, "file_name": name} for n, name in enumerate(records)]
    rewritten(root, lambda content: content["images"].extend(images))


def draw(root, *names):
    """Pictures of different widths: 1, 2, ... pixels."""
    for width, name in enumerate(names, start=1):
        path = root / "val2014" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, 4)).save(path)


def widths(source):
    """The width of each further image, or why there is none."""
    found = []
    for candidate in list(source.candidates())[2:]:
        try:
            found.append(probe(source.load(candidate.location))[0])
        except UnreadableImage as error:
            found.append(error.reason)
    return found


def test_coco_pictures_may_lie_in_subfolders(small_coco):
    names = [
        "a/1.jpg",
        "b/1.jpg",
        "elsewhere/COCO_val2014_9.jpg",
        "../COCO_val2014_9.jpg",
        "c/2.jpg",
    ]
    with_pictures(small_coco, names)
    draw(small_coco, *names[:2])
    Image.new("RGB", (9, 9)).save(small_coco / "COCO_val2014_9.jpg")  # outside of its split
    # COCO_val2014_9.jpg is the file of the image that is called so.
    assert widths(coco(small_coco)) == [1, 2, *[MISSING_FILE] * 3]


def test_coco_a_missing_file_is_no_other_image_s(small_coco):
    with_pictures(small_coco, ["1.jpg", "dogs/1.jpg", "cats/2.jpg", "dogs/2.jpg", "2.jpg"])
    draw(small_coco, "1.jpg", "cats/2.jpg", "2.jpg")
    source = coco(small_coco)
    assert widths(source) == [1, MISSING_FILE, 2, MISSING_FILE, 3]
    assert source.notes == [
        "rows left without a picture, since another row names the same file as well or better: 2, "
        "such as image 21 of val2014"
    ]


def test_coco_file_names_of_other_systems(small_coco):
    names = ["val2014\\0.jpg", "..\\images\\1.jpg", "JPEG\\cafe\u0301.jpg", "/data/4.JPG", "x.jpg"]
    with_pictures(small_coco, names)
    draw(small_coco, "0.jpg", "1.jpg", "caf\u00e9.jpg", "4.jpg", "5.jpg")
    url = {"coco_url": "http://c/val2014/5.jpg"}
    rewritten(small_coco, lambda content: content["images"][-1].update(url))
    source = coco(small_coco)
    assert widths(source) == [1, 2, 3, 4, 5]
    assert source.notes == [
        "pictures matched by the end of their path: 2, such as image 20 of val2014",
        "pictures matched by the end of their path in another spelling: 2, such as image 22 of val2014",
        "pictures matched by the last part of their address: 1, such as image 24 of val2014",
    ]


def test_coco_images_are_listed_once(small_coco):
    path = small_coco / "annotations" / "captions_val2014.json"
    content = json.loads(path.read_bytes())
    content["images"].append(content["images"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="twice"):
        coco(small_coco)


def test_coco_says_what_is_missing(small_coco, tmp_path_factory):
    with pytest.raises(UserError, match="found: val2014"):
        coco(small_coco, splits=["train2017"])
    with pytest.raises(FileNotFoundError, match="annotations"):
        coco(tmp_path_factory.mktemp("empty"))
    (small_coco / "annotations" / "captions_val2014.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        coco(small_coco)


def test_real_coco(shared, tmp_path):
    source = coco(shared / "coco_mini")
    candidates = candidates_of(source)
    assert len(candidates) == 83
    assert sum(len(c.captions) for c in candidates) == 415
    assert all(c.columns["licence"] for c in candidates)
    assert decode(source.load(candidates[0].location)).mode == "RGB"
    (tmp_path / "annotations").mkdir()
    shutil.copy(
        shared / "coco_captions_val2017.json", tmp_path / "annotations" / "captions_val2017.json"
    )
    by_layout = candidates_of(coco(tmp_path))
    alone = coco(shared / "coco_captions_val2017.json")
    for candidates in (by_layout, candidates_of(alone)):
        assert (len(candidates), sum(len(c.captions) for c in candidates)) == (5_000, 25_014)
    assert [c.key for c in by_layout] == [c.key for c in alone.candidates()]
    (note,) = alone.notes
    assert "val2017 is missing: the 5000 images" in note
