"""Where nothing is kept the ledger answers all the same, and the message fits the reader."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from curate import readers, verify
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.explain import explain
from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.coco import CocoConfig
from curate.readers.folder import FolderConfig
from curate.readers.hub import HubConfig
from curate.readers.openmoji import OpenmojiConfig
from curate.readers.shards import ShardsConfig
from curate.readers.tables import TableConfig
from curate.run import checksums, ledger
from curate.run.config import RunConfig
from curate.run.schema import UserError

TOO_STRICT = FiltersConfig(clip_similarity=ClipSimilarityConfig(minimum=1.0))


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="mine"),
        dataset=FolderConfig(
            name="mine", reader="folder", root=str(make_pictures(tmp_path / "pictures", 12))
        ),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(),
        split=SplitConfig(val=0.1, test=0.1, minimum=2),
    )


def run(config, **changes):
    config = replace(config, **changes)
    full.run(config, readers.read(config.dataset))


def refused(config, **changes):
    with pytest.raises(UserError) as error:
        run(config, **changes)
    return str(error.value)


def test_the_first_curation_leaves_a_ledger_that_explains(config, capsys):
    said = refused(config, filters=TOO_STRICT)
    curate_dir = config.run.folder / "curate"
    assert "clip_similarity < 1 (12)" in said
    assert f"python -m curate.explain {config.run.folder} 0000" in said
    assert len(ledger.read(curate_dir)) == 12
    assert json.loads((curate_dir / "funnel.json").read_bytes())["kept"] == 0
    assert (curate_dir / "report.html").stat().st_size > 10_000
    assert not (curate_dir / "manifest.json").exists()
    assert not (curate_dir / "tasks").exists()
    [story] = explain(curate_dir, ["0003"])
    assert "clip_similarity < 1" in story
    assert "held out for judging" not in capsys.readouterr().out


def test_shares_leave_a_finished_curation_its_checksums(config, make_pictures):
    config.annotate.images_per_part = 5
    run(config)
    curate_dir = config.run.folder / "curate"
    before = set(checksums.read(curate_dir).files)
    make_pictures(config.run.folder.parent.parent / "pictures", 14)
    in_shares = {"stage": "annotate", "shard": "0/2"}
    run(config, **in_shares)
    listed = set(checksums.read(curate_dir).files)
    assert listed == {name for name in before if not name.startswith("annotations/")}
    assert any(name.startswith("shards/") for name in listed)
    missing = refused(config, stage="finish")
    assert missing.startswith(
        "not measured yet, or not with these settings: 1 of 3 tasks (5 images)"
    )
    assert "shard=1/2" in missing
    assert listed < set(checksums.read(curate_dir).files)
    run(config, **{**in_shares, "shard": "1/2"})
    refused(config, stage="finish", filters=TOO_STRICT)
    assert before - set(checksums.read(curate_dir).files) <= {
        name for name in before if name.startswith("annotations/part-")
    }
    assert list(verify.problems(curate_dir)) == []
    run(config, stage="finish")
    assert checksums.unlisted(curate_dir) == []


def test_shards_ledger_and_manifest_of_a_finished_curation_stay(config, bytes_of):
    run(config)
    curate_dir = config.run.folder / "curate"
    before = bytes_of(curate_dir)
    said = refused(config, filters=TOO_STRICT)
    assert said.endswith(f"the shards of the earlier curation in {curate_dir} stay as they are")
    assert bytes_of(curate_dir) == before
    assert list(verify.problems(curate_dir)) == []
    beside = config.run.folder / "nothing_kept" / "curate"
    assert f"python -m curate.explain {beside.parent} 0000" in said
    [story] = explain(beside, ["0003"])
    assert "clip_similarity < 1" in story
    run(config)
    assert not beside.parent.exists()


def test_a_picture_that_is_not_there_is_named_with_the_readers_own_key(config, tmp_path):
    (tmp_path / "annotations").mkdir()
    content = {"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": []}
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(content))
    coco = CocoConfig(name="c", reader="coco", root=str(tmp_path))
    said = refused(config, dataset=coco)
    assert f"looked for 'val2017/7.jpg' in dataset.root={tmp_path}" in said
    assert "say where they are: dataset.root=FOLDER" in said
    assert "images_dir" not in said


def test_a_tables_pictures_are_in_images_dir(config, tmp_path):
    (tmp_path / "t.csv").write_text("file_name,caption\na.png,a cat\nb.png,a dog\n")
    folder = tmp_path / "empty"
    folder.mkdir()
    path = str(tmp_path / "t.csv")
    table = TableConfig(name="t", reader="table", path=path, images_dir=str(folder))
    said = refused(config, dataset=table)
    assert f"looked for 'a.png', 'b.png' in dataset.images_dir={folder}; say where they are" in said
    assert "dataset.images_dir=FOLDER" in said
    assert "dataset.root" not in said


def test_pictures_without_captions_say_where_captions_are_looked_for(config, tmp_path):
    (tmp_path / "bare").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "bare/a.png")
    folder = FolderConfig(name="b", reader="folder", root=str(tmp_path / "bare"))
    said = refused(config, dataset=folder)
    assert "no_caption" in said
    assert "conf/dataset/folder.yaml says where captions are looked for" in said
    assert 'dataset.caption="a photo of ..."' in said
    assert "caption_column" not in said


def test_a_rule_on_captions_is_to_be_loosened(config):
    strict = FiltersConfig(caption=CaptionFilterConfig(min_words=99))
    assert "loosen the rule" in refused(config, filters=strict)


@pytest.mark.parametrize(
    ("dataset", "pictures", "captions"),
    [
        (FolderConfig(name="x", reader="folder", root="x"), "root", None),
        (TableConfig(name="x", reader="table", path="x"), "images_dir", "caption_columns"),
        (HubConfig(name="x", reader="hub", path="x"), "path", "caption_column"),
        (ShardsConfig(name="x", reader="shards", path="x"), "path", "caption_field"),
        (OpenmojiConfig(name="x", reader="openmoji"), None, None),
    ],
)
def test_the_keys_are_the_readers_own(dataset, pictures, captions):
    assert (dataset.pictures_key, dataset.captions_key) == (pictures, captions)


def test_a_part_without_images_is_told_from_a_data_set_without(config):
    part = replace(config.dataset, sample=1e-9)
    with pytest.raises(UserError, match=r"but dataset\.sample=1e-09 chooses none of them"):
        readers.read(part)
