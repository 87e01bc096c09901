"""Published data sets are looked for below data/, and what belongs there is said where nothing is."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from curate import readers
from curate.pipeline.config import CurateConfig
from curate.run import overrides
from curate.run.schema import to_dataclass

CONF = Path(__file__).resolve().parents[3] / "conf"
PUBLISHED = sorted(
    path.stem
    for path in (CONF / "dataset").glob("*.yaml")
    if path.stem not in ("openmoji", "table", "shards", "hub")
)


def dataset(*typed):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("curate", overrides.prepare(typed))
    return to_dataclass(cfg, CurateConfig).dataset


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overrides, "_arguments", [])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_alone_says_in_lines_what_to_put_where(name):
    overrides.remember([f"dataset={name}", "split.val=0.1"], "curate")
    with pytest.raises(FileNotFoundError) as absent:
        readers.read(dataset(f"dataset={name}"))
    looked, put, typed, *fetched = str(absent.value).splitlines()
    assert looked.startswith(f"dataset={name}: there is nothing at dataset.")
    layout = yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text())["layout"]
    assert put == f"  put into data/{name}: {layout}"
    key = looked.rpartition("at ")[2].partition("=")[0]
    assert f"python -m curate dataset={name} split.val=0.1 {key}=" in typed
    assert len(fetched) == (name == "coco")


def test_how_coco_is_fetched_is_said_with_its_size():
    overrides.remember(["dataset=coco", "split.val=0.1"], "curate")
    for splits, size in (([], "20.4 GB"), (["dataset.splits=[val2017]"], "1.1 GB")):
        with pytest.raises(FileNotFoundError) as absent:
            readers.read(dataset("dataset=coco", *splits))
        assert str(absent.value).splitlines()[3] == (
            f"  or have {size} fetched from images.cocodataset.org: "
            "python -m curate dataset=coco split.val=0.1 dataset.download=true"
        )


def test_what_is_put_there_is_found(tmp_path):
    files = tmp_path / "data" / "folder"
    files.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="nothing at"):  # an empty folder
        readers.read(dataset("dataset=folder"))
    (files / "cat.jpg").write_bytes(b"")
    (files / "cat.txt").write_text("a cat")
    (pair,) = readers.read(dataset("dataset=folder")).candidates()
    assert pair.captions == ("a cat",)


def test_a_table_and_its_pictures_have_places_of_their_own(tmp_path):
    """The tables that img2dataset leaves beside its shards are not those of the data set."""
    home = tmp_path / "data" / "cc3m"
    (home / "images").mkdir(parents=True)
    (home / "Train_GCC-training.tsv").write_text("a cat\thttp://a/1.jpg\n")
    (home / "images" / "00000.tsv").write_text("a dog\thttp://a/2.jpg\n")
    (pair,) = readers.read(dataset("dataset=cc3m")).candidates()
    assert pair.captions == ("a cat",)
    (home / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"nothing at dataset\.images_dir=data/cc3m/images"):
        readers.read(dataset("dataset=cc3m"))


def test_a_place_that_is_typed_is_named_as_it_is_typed():
    with pytest.raises(
        FileNotFoundError, match=r"(?s)at dataset\.root=my/coco\n  put into my/coco"
    ):
        readers.read(dataset("dataset=coco", "dataset.root=my/coco"))
