"""Visual Genome in files of both releases' spelling."""

import json
from pathlib import Path

import pytest
from PIL import Image

from curate import readers
from curate.measures.decode import UnreadableImage, probe
from curate.readers.coco import CocoConfig
from curate.readers.visual_genome import VisualGenomeConfig
from curate.run.schema import UserError

pytest.importorskip("ijson", reason="package ijson is not installed")

URL = "https://cs.stanford.edu/people/rak248/{}/{}.jpg"


def region(phrase, width=10, height=10, **names):
    return {"phrase": phrase, "x": 0, "y": 0, "width": width, "height": height, **names}


@pytest.fixture
def root(tmp_path):
    sizes = {"width": 100, "height": 50}
    images = [
        {"image_id": 1, "url": URL.format("VG_100K_2", 1), "coco_id": None, **sizes},
        {"image_id": 2, "url": URL.format("VG_100K", 2), "coco_id": 57870, **sizes},
        {"image_id": 3, "url": URL.format("VG_100K", 3), "coco_id": None, "flickr_id": 9, **sizes},
    ]
    regions = [
        {
            "id": 2,
            "regions": [
                region("a small clock", 10, 10, region_id=7, image_id=2),
                region("a  street\n", 100, 50),
                region("a car", 50, 50),
                region("a car", 50, 20),
            ],
        },
        {"id": 1, "regions": [region("a tree")]},
        {"id": 8, "regions": [region("nowhere")]},
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(images))
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions))
    for place in ("VG_100K_2/1", "VG_100K_2/2"):
        (tmp_path / "VG_100K_2").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / f"{place}.jpg")
    return tmp_path


def genome(root, **options):
    config = VisualGenomeConfig(
        name="visual_genome", reader="visual_genome", root=str(root), **options
    )
    return readers.read(config)


def rewrite(path: Path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_phrases_of_the_largest_regions_are_the_captions(root):
    source = genome(root)
    street, tree, lost, silent = source.candidates()
    assert street.captions == ("a street", "a car", "a small clock")
    assert (tree.captions, silent.captions) == (("a tree",), ())
    assert (silent.key, silent.columns["flickr_id"]) == ("vg-3", "9")
    assert street.columns["coco_id"] == "57870"
    assert (street.location, tree.location) == ("VG_100K_2/2.jpg", "VG_100K_2/1.jpg")
    assert probe(source.load(street.location)) == (6, 4, "JPEG")
    for missing in (lost, silent):
        with pytest.raises(UnreadableImage, match="missing file"):
            source.load(missing.location)
    assert source.notes == [
        "pictures matched by the end of their path: 1, such as image 2",
        "regions that repeat a phrase of their image: 1, such as image 2",
        "images that image_data.json does not list: 1, such as 8",
    ]
    assert list(source.candidates()) == [street, tree, lost, silent]


def test_a_picture_in_the_other_folder_is_its_own_image_s(root):
    image = {
        "image_id": 8,
        "url": URL.format("VG_100K", 1),
        "coco_id": None,
        "width": 1,
        "height": 1,
    }
    rewrite(root / "image_data.json", lambda images: [*images, image])
    source = genome(root)
    *_, other, _ = source.candidates()
    assert (other.key, other.location) == ("vg-8", "")  # VG_100K_2/1.jpg is that of image 1
    note = "rows left without a picture, since another row names the same file as well or better"
    assert f"{note}: 1, such as image 8" in source.notes
    (root / "VG_100K").mkdir()
    Image.new("RGB", (7, 4)).save(root / "VG_100K/1.jpg")
    source = genome(root)
    assert [c.location for c in source.candidates()][-2] == "VG_100K/1.jpg"


def test_small_regions_and_further_phrases_are_left_out_and_counted(root):
    source = genome(root, captions_per_image=1)
    assert next(source.candidates()).captions == ("a street",)
    list(source.candidates())
    assert "phrases beyond dataset.captions_per_image: 2, such as image 2" in source.notes
    source = genome(root, min_region_share=0.5)  # a car's region is exactly half of the picture
    assert next(source.candidates()).captions == ("a street", "a car")
    list(source.candidates())
    assert "regions smaller than dataset.min_region_share: 4, such as image 2" in source.notes


@pytest.mark.parametrize("spelling", ["older images", "newer regions", "ids in regions only"])
def test_other_spellings_of_the_id_change_nothing(root, spelling):
    expected = list(genome(root).candidates())
    if spelling == "older images":
        rewrite(
            root / "image_data.json",
            lambda images: [{"id": i.pop("image_id"), **i} for i in images],
        )
    elif spelling == "newer regions":
        rewrite(
            root / "region_descriptions.json",
            lambda records: [{"image_id": r["id"], "regions": r["regions"]} for r in records],
        )
    else:
        rewrite(
            root / "region_descriptions.json",
            lambda records: [
                {"regions": [{**x, "image_id": r["id"]} for x in r["regions"]]} for r in records
            ],
        )
    assert list(genome(root).candidates()) == expected


def test_pictures_of_coco_share_their_group_with_coco(root, tmp_path_factory):
    coco = tmp_path_factory.mktemp("coco")
    (coco / "annotations").mkdir()
    for split in ("train2014", "val2017"):
        content = {"images": [{"id": 57870, "file_name": "x.jpg"}], "annotations": []}
        (coco / f"annotations/captions_{split}.json").write_text(json.dumps(content))
    ours = readers.read(CocoConfig(name="coco", reader="coco", root=str(coco)))
    groups = {c.columns["group"] for c in ours.candidates()}
    assert groups == {next(genome(root).candidates()).columns["group"]} == {"coco-57870"}
    assert len({c.key for c in ours.candidates()}) == 2


def test_what_is_missing_or_broken_is_named(root):
    regions = root / "region_descriptions.json"
    whole = regions.read_text()
    for broken in (whole[:-40], "{}", '[{"regions": 1}]', "<html>", '[{"id": 1}]'):
        regions.write_text(broken)
        with pytest.raises(UserError, match=r"region_descriptions\.json"):
            list(genome(root).candidates())
    regions.write_text(json.dumps(json.loads(whole) * 2))
    with pytest.raises(UserError, match="image 2 twice"):
        list(genome(root).candidates())
    regions.unlink()
    with pytest.raises(FileNotFoundError, match=r"region_descriptions\.json is missing"):
        genome(root)
    regions.write_text(whole)
    (root / "image_data.json").write_text("[1]")
    with pytest.raises(UserError, match=r"image_data\.json is not"):
        genome(root)
