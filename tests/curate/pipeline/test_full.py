"""The full run on small data: complete ledgers, equal bytes, notes and errors."""

import hashlib
import html
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from curate import readers
from curate.annotate import rejects
from curate.annotate import stage as annotate
from curate.annotate.config import AnnotateConfig
from curate.clip import scorer as clip
from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from curate.decide import narrow
from curate.decide.config import SplitConfig
from curate.filters.caption import CaptionFilterConfig
from curate.filters.columns import ColumnConfig
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DuplicatesConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.measures.unreadable import CANNOT_BE_READ, UnreadableImage
from curate.pack.config import ShardsConfig
from curate.pack.sample import read_shard
from curate.pack.samples import Samples
from curate.pipeline import full as pipeline
from curate.pipeline.config import CurateConfig
from curate.readers.coco import CocoConfig
from curate.readers.folder import FolderConfig
from curate.readers.folder import reader as folder_reader
from curate.run import checksums, ledger
from curate.run.config import RunConfig
from curate.run.engine.tasks import TasksFailed
from curate.run.locks import locked
from curate.run.manifest import read_funnel, read_manifest
from curate.run.schema import UserError
from curate.verify import problems
from tests.curate.run.test_tracking import shown

__all__ = ["shown"]


@pytest.fixture
def config(tiny_clip, pictures, tmp_path):
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="small"),
        dataset=FolderConfig(name="small", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(clip_similarity=ClipSimilarityConfig(fraction=0.75)),
        split=SplitConfig(val=0.1, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=10),
        annotate=AnnotateConfig(images_per_part=10),
    )


def run(config):
    pipeline.run(config, readers.read(config.dataset))
    return Path(config.run.root, config.run.name, "curate")


def test_a_run_is_complete_and_its_parts_agree(config):
    curate_dir = run(config)
    table, manifest = ledger.read(curate_dir), read_manifest(curate_dir)
    assert len(table) == 48
    assert table["kept"].sum() == 36
    samples = {s.key: s for shard in manifest.shards for s in read_shard(curate_dir / shard.path)}
    kept = table[table["kept"]].set_index("key")
    assert set(samples) == set(kept.index)
    assert manifest.image_format == "png"
    assert manifest.totals["samples"] == kept["split"].value_counts().to_dict()
    for key, sample in samples.items():
        assert sample.image == (Path(config.dataset.root) / f"{key}.png").read_bytes()
        assert sample.caption == kept.loc[key, "caption"]
        assert sample.meta["similarity"] == pytest.approx([kept.loc[key, "clip_similarity"]])
        assert hashlib.sha256(sample.image).hexdigest() == sample.meta["sha256"]
    for shard in manifest.shards:
        content = (curate_dir / shard.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert set(kept.index[kept["shard"] == shard.path]) == {
            sample.key for sample in read_shard(curate_dir / shard.path)
        }
    assert (curate_dir / "report.html").stat().st_size > 10_000


def test_the_numbers_of_the_funnel_go_to_the_tracker(config, shown):
    config.tracker = "tensorboard"
    config.filters.caption.min_words = 3
    curate_dir = run(config)
    table = ledger.read(curate_dir)
    found = {tag.removeprefix("curate/"): curve[0] for tag, curve in shown(curate_dir).items()}
    cut, images = found.pop("cut"), read_manifest(curate_dir).totals["samples"]
    assert cut == pytest.approx(read_funnel(curate_dir)["cut"]["similarity"])
    dropped = table["rule"].value_counts().drop("")
    assert {name: value for name, value in found.items() if value} == {
        "pairs_in": 48,
        "images_in": 48,
        "kept": table["kept"].sum(),
        "dropped": dropped.sum(),
        **{f"images_{side}": count for side, count in images.items()},
        **{f"dropped_by/{rule}": count for rule, count in dropped.items()},
    }
    assert list(problems(curate_dir)) == []
    assert checksums.unlisted(curate_dir) == []


def test_the_manifest_names_the_scorer_of_the_annotations(config):
    found = {}
    for draft in (False, True):
        config.annotate.draft = draft
        curate_dir = run(config)
        [clip_model] = set(ledger.read(curate_dir)["clip_model"])
        found[draft] = read_manifest(curate_dir).fingerprint["scorer"]
        assert clip_model.endswith(f" {found[draft]}")
    assert found[False] != found[True]


def test_the_rows_of_a_shard_are_made_to_write_it_and_never_else(config, monkeypatch):
    made = []
    original = Samples.rows
    monkeypatch.setattr(Samples, "rows", lambda self: made.append(len(self)) or original(self))
    shards = read_manifest(run(config)).shards
    assert len(made) == len(shards) > 2
    made.clear()
    run(config)  # nothing is written again
    assert made == []


def test_shards_in_the_order_of_the_source_say_what_that_gives_up(config, capsys):
    config.shards.order = "source"
    curate_dir = run(config)
    [said] = [text for text in read_funnel(curate_dir)["notes"] if "shards.order" in text]
    assert said in capsys.readouterr().out
    keys = [
        [sample.key for sample in read_shard(curate_dir / shard.path)]
        for shard in read_manifest(curate_dir).shards_of("train")
    ]
    assert [key for some in keys for key in some] == sorted(key for some in keys for key in some)
    assert [len(some) for some in keys[:-1]] == [10] * (len(keys) - 1)
    assert not (curate_dir / "tasks").exists()


def test_every_dropped_pair_names_its_rule(config):
    config.filters.caption.min_words = 3
    config.dataset.limit = 40
    table = ledger.read(run(config))
    assert set(table["rule"]) == {"", "caption_words", "clip_similarity"}
    assert ((table["rule"] == "") == table["kept"]).all()
    reasons = table.groupby("rule")["reason"].unique()
    assert reasons["caption_words"].tolist() == ["caption_words < 3"]
    assert reasons["clip_similarity"].tolist() == ["clip_similarity not among the top 0.75"]


def test_similarity_is_the_cosine_of_the_two_towers(config):
    curate_dir = run(config)
    scorer = load_clip(config.clip)
    for row in ledger.read(curate_dir).head(5).itertuples():
        image = Image.open(Path(config.dataset.root) / f"{row.key}.png").convert("RGB")
        one, other = scorer.encode_images([image]), scorer.encode_texts([row.caption])
        assert row.clip_similarity == pytest.approx((one @ other.T).item(), abs=2e-4)
        one, other = (each.astype(np.float16).astype(np.float64) for each in (one, other))
        cosine = (one @ other.T).item() / np.linalg.norm(one) / np.linalg.norm(other)
        assert row.clip_similarity == pytest.approx(cosine, abs=1e-6)


def test_the_same_command_gives_the_same_bytes_elsewhere(config, bytes_of, tmp_path):
    first = bytes_of(run(config))
    config.run.root = str(tmp_path / "elsewhere")
    config.annotate.workers = 5
    assert bytes_of(run(config)) == first


def test_other_thresholds_measure_nothing_and_leave_nothing_behind(config, monkeypatch):
    run(config)
    monkeypatch.setattr(
        "curate.clip.load.load_clip", lambda *_: pytest.fail("the model was loaded")
    )
    config.filters.clip_similarity.fraction = 0.25
    curate_dir = run(config)
    manifest = read_manifest(curate_dir)
    assert manifest.totals["kept"] == 12
    tars = {str(path.relative_to(curate_dir)) for path in curate_dir.rglob("*.tar")}
    assert tars == {shard.path for shard in manifest.shards}


def test_added_data_is_all_that_is_measured_and_moves_nobody(
    config, make_pictures, tmp_path, monkeypatch
):
    config.dataset.root = str(make_pictures(tmp_path / "grows", 30))
    config.split.minimum = 0
    config.filters = FiltersConfig()
    before = ledger.read(run(config)).set_index("key")
    make_pictures(tmp_path / "grows", 31)  # the first thirty are drawn anew, the same bytes
    (tmp_path / "grows" / "0030.png").rename(tmp_path / "grows" / "00000_first.png")
    (tmp_path / "grows" / "0030.txt").rename(tmp_path / "grows" / "00000_first.txt")
    seen = []
    original = clip.ClipScorer.encode_pixels
    monkeypatch.setattr(
        clip.ClipScorer, "encode_pixels", lambda self, i: seen.extend(i) or original(self, i)
    )
    after = ledger.read(run(config)).set_index("key")
    assert len(seen) == 1
    columns = ["clip_similarity", "split", "sha256", "duplicate_group"]
    pd.testing.assert_frame_equal(after.loc[before.index, columns], before[columns])


def test_a_few_more_pictures_rewrite_a_few_shards(config, make_pictures, tmp_path):
    """Shards of added pictures alone change; of a shard that became too large, about half moves."""
    config.dataset.root = str(make_pictures(tmp_path / "grows", 60))
    config.split.minimum, config.filters, config.shards.max_samples = 0, FiltersConfig(), 6
    curate_dir = run(config)
    before, old = read_manifest(curate_dir), ledger.read(curate_dir).set_index("key")["shard"]
    stamps = {shard.path: (curate_dir / shard.path).stat().st_mtime_ns for shard in before.shards}
    make_pictures(tmp_path / "grows", 63)
    run(config)
    after, new = read_manifest(curate_dir), ledger.read(curate_dir).set_index("key")["shard"]
    touched = set(new[new.index.difference(old.index)]) | set(old[old != new[old.index]])
    kept = {shard.path: shard.sha256 for shard in before.shards}
    assert len(touched) < len(kept) / 2
    for shard in after.shards:
        if shard.path not in touched and shard.path in kept:
            assert shard.sha256 == kept[shard.path]
            assert (curate_dir / shard.path).stat().st_mtime_ns == stamps[shard.path]
    assert {shard.path for shard in after.shards} == set(new) - {""}
    assert list(problems(curate_dir, images=True)) == []


def test_every_pair_is_accounted_for(config, tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    for name in ("good", "copy", "uncaptioned", "empty"):
        noise.save(root / f"{name}.png")
    noise.rotate(90).save(root / "jpeg.jpg")
    (root / "broken.png").write_bytes((root / "good.png").read_bytes()[:400])
    (root / "text.png").write_text("not an image")
    for name in ("good", "copy", "jpeg", "broken", "text"):
        (root / f"{name}.txt").write_text("the same caption")
    (root / "empty.txt").write_text("\n")
    config.dataset.root, config.filters = str(root), FiltersConfig()
    curate_dir = run(config)
    table = ledger.read(curate_dir).set_index("key")
    reasons = table["reason"].to_dict()
    assert reasons.pop("broken").startswith("unreadable: ")
    assert reasons == {
        "copy": "",
        "good": "duplicate",
        "uncaptioned": "no_caption",
        "empty": "empty_caption",
        "jpeg": "",
        "text": "unreadable: not an image",
    }
    assert table["duplicate_of"][table["duplicate_of"] != ""].to_dict() == {"good": "copy"}
    manifest = read_manifest(curate_dir)
    assert manifest.image_format == "jpg"  # mixed sources: the PNG is encoded anew, the JPEG kept
    samples = {s.key: s for shard in manifest.shards for s in read_shard(curate_dir / shard.path)}
    assert samples["jpeg"].image == (root / "jpeg.jpg").read_bytes()
    assert samples["copy"].image[:2] == b"\xff\xd8"


def test_several_captions_share_one_image(config, shared, monkeypatch):
    encoded = []
    original = clip.ClipScorer.encode_pixels
    monkeypatch.setattr(
        clip.ClipScorer, "encode_pixels", lambda self, i: encoded.extend(i) or original(self, i)
    )
    config.dataset = CocoConfig(name="coco", reader="coco", root=str(shared / "coco_mini"))
    curate_dir = run(config)
    table = ledger.read(curate_dir)
    assert (len(table), table["key"].nunique(), len(encoded)) == (415, 83, 83)
    assert table["kept"].sum() == 311  # floor(0.75 * 415)
    manifest = read_manifest(curate_dir)
    captions = 0
    for shard in manifest.shards:
        for sample in read_shard(curate_dir / shard.path):
            captions += len(sample.captions)
            assert sample.meta["similarity"] == sorted(sample.meta["similarity"], reverse=True)
            assert sample.meta["url"].startswith("http")
            assert sample.meta["licence"]
    assert captions == 311


def test_odd_images_never_end_a_run(config, shared, tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    names = [
        path for path in (shared / "odd_images").iterdir() if path.suffix not in (".csv", ".txt")
    ]
    for number, path in enumerate(sorted(names)):
        (root / f"{number:03d}.jpg").symlink_to(path)
        (root / f"{number:03d}.txt").write_text(f"picture {number}")
    config.dataset.root, config.annotate.max_reject_rate = str(root), 1.0
    status = ledger.read(run(config))["status"].value_counts()
    assert status.sum() == len(names)
    assert status["unreadable"] > 30
    assert status["kept"] > 30


def test_too_much_unreadable_stops_the_run(config, tmp_path):
    root = tmp_path / "broken"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.jpg").write_text("<html>404</html>")
        (root / f"{number}.txt").write_text("a cat")
    config.dataset.root = str(root)
    with pytest.raises(UserError, match=r"not an image: 5.*annotate\.max_reject_rate"):
        run(config)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("images_per_part", [1, 3, 10, 512])
def test_too_many_unreadable_images_in_a_row_stop_the_run_however_it_is_cut(
    config, make_pictures, tmp_path, monkeypatch, images_per_part
):
    monkeypatch.setattr(rejects, "WINDOW", 10)
    config.annotate.images_per_part = images_per_part
    root = make_pictures(tmp_path / "many", 31)
    config.dataset.root = str(root)
    good = {number: (root / f"{number:04d}.png").read_bytes() for number in range(31)}
    for number in (0, 1, 2, 3, 30):  # not half of ten, and a rest of one
        (root / f"{number:04d}.png").write_bytes(b"truncated")
    assert ledger.read(run(config))["status"].value_counts()["unreadable"] == 5
    for number in range(13, 19):
        (root / f"{number:04d}.png").write_bytes(b"truncated")
    for _ in range(2):  # whatever was measured before
        with pytest.raises(
            UserError, match=r"6 of 10 images.* '0013\.png'.*annotate\.max_reject_rate"
        ):
            run(config)
    config.annotate.max_reject_rate = 0.6
    assert ledger.read(run(config))["status"].value_counts()["unreadable"] == 11
    config.annotate.max_reject_rate = 0.5
    with pytest.raises(UserError, match="6 of 10 images"):
        run(config)
    for number in range(13, 19):
        (root / f"{number:04d}.png").write_bytes(good[number])
    assert ledger.read(run(config))["status"].value_counts()["unreadable"] == 5


@pytest.mark.slow
def test_shares_and_finish_stop_where_a_plain_run_does(
    config, make_pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(rejects, "WINDOW", 10)
    config.annotate.images_per_part = 5
    root = make_pictures(tmp_path / "many", 40)
    config.dataset.root = str(root)
    good = (root / "0016.png").read_bytes()

    def staged():
        for share in ("0/2", "1/2"):
            run(replace(config, stage="annotate", shard=share))
        run(replace(config, stage="finish"))

    # Share 0/2 has six of ten in a row, the whole never has more than five.
    for number in (0, 1, 2, 10, 11, 12, 15, 17, 20, 21, 22):
        (root / f"{number:04d}.png").write_bytes(b"truncated")
    staged()
    (root / "0016.png").write_bytes(b"truncated")  # of each share three in a row at most
    for _ in range(2):
        with pytest.raises(UserError, match=r"6 of 10 images.* '0010\.png'"):
            staged()
    (root / "0016.png").write_bytes(good)
    staged()
    config.annotate.max_reject_rate = 0.1
    with pytest.raises(UserError, match=r"3 of 10 images.* '0000\.png'"):
        run(replace(config, stage="finish"))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("similarity", [{"false_keep_rate": 0.1}, {"minimum": -1.0}])
def test_where_no_two_captions_differ_nothing_is_calibrated(
    config, make_pictures, tmp_path, capsys, count, similarity
):
    root = make_pictures(tmp_path / "alike", count)
    for path in root.glob("*.txt"):
        path.write_text("a photo of my dog")
    config.dataset.root = str(root)
    config.filters.clip_similarity = ClipSimilarityConfig(**similarity)
    curate_dir = run(config)
    funnel = json.loads((curate_dir / "funnel.json").read_bytes())
    assert funnel["cut"]["false_keep_rate"] is None
    assert funnel["kept"] == read_manifest(curate_dir).totals["kept"] == count
    said = capsys.readouterr().out
    if "minimum" in similarity:
        assert "similarity >= -1 (minimum=-1); no shuffled captions" in said
        return
    sentence = "no image has a caption of another to be compared with"
    assert f"cut: none (false_keep_rate=0.1: {sentence}" in said
    assert sentence in html.unescape((curate_dir / "report.html").read_text())


def test_a_column_that_is_not_there_is_told_before_anything_is_scored(config, capsys, monkeypatch):
    loaded = []
    load = load_clip
    monkeypatch.setattr(
        "curate.clip.load.load_clip", lambda c: loaded.append(capsys.readouterr()) or load(c)
    )
    config.filters.columns = {"punsafe": ColumnConfig(), "width": ColumnConfig()}
    with pytest.raises(UserError, match=r"filters\.columns\.punsafe"):
        run(config)
    said = loaded[0].out + loaded[0].err
    assert "filters.columns.punsafe: none of the first 48 images has a column 'punsafe'" in said
    assert said.count("none of the first") == 1


def test_a_pair_that_gets_lost_on_the_way_stops_the_run(config, monkeypatch):
    original = narrow.frame_of
    monkeypatch.setattr(narrow, "frame_of", lambda *a: original(*a).iloc[:-1])
    with pytest.raises(TasksFailed, match=r"there are 47 verdicts for 48 pairs"):
        run(config)
    assert not (Path(config.run.root, "small", "curate") / "shards").exists()


def test_an_image_that_changed_since_is_noticed(config, make_pictures, tmp_path, monkeypatch):
    config.dataset.root = str(make_pictures(tmp_path / "changes", 12))
    source = readers.read(config.dataset)
    original = annotate.annotate

    def change_afterwards(*args, **kwargs):
        parts = original(*args, **kwargs)
        for path in Path(config.dataset.root).glob("*.png"):
            Image.new("RGB", (8, 8)).save(path)
        return parts

    monkeypatch.setattr(pipeline, "annotate", change_afterwards)
    with pytest.raises(UserError, match="has changed since") as changed:
        pipeline.run(config, source)
    assert "every image is read again" not in str(changed.value)  # their times show the change
    parts = config.run.folder / "curate" / "annotations"
    assert len([*parts.glob("part-*.parquet")]) == 2
    assert not [*parts.glob("*.reread.parquet")]


def test_a_change_that_size_and_time_do_not_show_is_measured_by_the_same_command(
    config, make_pictures, tmp_path, monkeypatch
):
    """As a file system does that keeps no time of change, under a file that is replaced in place."""
    root = make_pictures(tmp_path / "changes", 24)
    config.dataset.root = str(root)
    config.filters = FiltersConfig()
    monkeypatch.setattr(folder_reader, "version_of", lambda path: f"{path.stat().st_size}")
    for image in root.glob("*.png"):
        image.rename(image.with_suffix(".bmp"))
        Image.open(image.with_suffix(".bmp")).convert("RGB").save(image.with_suffix(".bmp"))
    run(config)
    changed = [root / f"{number:04d}.bmp" for number in (3, 15, 23)]
    for number, path in enumerate(changed):
        Image.new("RGB", (40, 32), (number, 200, 0)).save(path)
    config.shards.jpeg_quality = 90  # so that the shards are written again
    with pytest.raises(UserError, match="do not show the change, so every image is read again"):
        run(config)
    curate_dir = run(config)
    stored = ledger.read(curate_dir).set_index("key")["sha256"]
    for path in root.glob("*.bmp"):
        assert stored[path.stem] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not [*(curate_dir / "annotations").glob("*.reread.parquet")]


def test_an_image_that_cannot_be_read_any_more_is_counted_by_the_same_command(
    config, make_pictures, tmp_path, monkeypatch
):
    config.dataset.root = str(make_pictures(tmp_path / "failing", 24))
    config.filters = FiltersConfig()
    run(config)
    config.shards.jpeg_quality = 50  # every shard is written again
    source = readers.read(config.dataset)
    load = source.load

    def failing(location):
        if location == "0003.png":
            raise UnreadableImage(f"{CANNOT_BE_READ} (Input/output error)")
        return load(location)

    monkeypatch.setattr(source, "load", failing)
    with pytest.raises(UserError, match="image 0003 cannot be read any more"):
        pipeline.run(config, source)
    pipeline.run(config, source)
    table = ledger.read(config.run.folder / "curate")
    assert table.loc[table["status"] == "unreadable", "key"].tolist() == ["0003"]


@pytest.mark.slow
def test_what_was_run_before_changes_nothing(config, bytes_of, tmp_path):
    strict = FiltersConfig(
        caption=CaptionFilterConfig(min_words=4),
        clip_similarity=ClipSimilarityConfig(false_keep_rate=0.5),
        duplicates=DuplicatesConfig(hamming_distance=8),
    )
    config.filters = strict
    fresh = verdicts_of(run(config))
    config.run.root = str(tmp_path / "elsewhere")
    config.filters, config.annotate.measures = FiltersConfig(), ["quality"]
    run(config)
    config.filters, config.annotate.measures = strict, []
    after = run(config)
    assert verdicts_of(after) == fresh
    config.run.root = str(tmp_path / "third")
    assert bytes_of(run(config) / "shards") == bytes_of(after / "shards")


def verdicts_of(curate_dir):
    return ledger.read(curate_dir).fillna(0).to_dict("list")


def test_two_processes_never_work_in_one_run(config):
    curate_dir = Path(config.run.root, config.run.name, "curate")
    with locked(curate_dir), pytest.raises(UserError, match="another process"):
        run(config)
    run(config)


def test_a_previous_run_on_other_data_is_noted(config, make_pictures, tmp_path, capsys):
    run(config)
    run(config)
    assert "other data" not in capsys.readouterr().out
    config.dataset.root = str(make_pictures(tmp_path / "others", 12))
    run(config)
    assert "used other data (root changed)" in capsys.readouterr().out


def test_an_interrupted_curation_can_be_typed_again(
    config, make_pictures, tmp_path, monkeypatch, capsys
):
    command = ["dataset=folder", "dataset.root=/it's here"]
    monkeypatch.setattr(pipeline.provenance, "typed", lambda: command)
    curate_dir = config.run.folder / "curate"

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "annotate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    with pytest.raises(FileNotFoundError) as missing:
        read_manifest(curate_dir)
    said = (
        "python -m curate dataset=folder 'dataset.root=/it'\"'\"'s here' run.name=small run.root="
    )
    assert said in str(missing.value)
    config.dataset.root, begun = str(make_pictures(tmp_path / "others", 12)), config.dataset.root
    run(config)
    assert "other data" not in capsys.readouterr().out  # of which there are no shards
    finished = (curate_dir / "config.yaml").read_bytes()
    config.dataset.root = begun
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "annotate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert (curate_dir / "config.yaml").read_bytes() == finished  # as the shards still are
    run(config)
    assert capsys.readouterr().out.count("used other data (root changed)") == 2


def test_what_other_readers_would_see_turned_or_in_other_colours_is_encoded_anew(config, tmp_path):
    folder = Path(config.dataset.root).parent / "odd"
    folder.mkdir()
    grey = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.save(folder / "plain.jpg", quality=90)
    grey.save(folder / "turned.jpg", exif=turned, quality=90)
    grey.convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    grey.save(folder / "camera.jpg", "MPO", save_all=True, append_images=[grey], quality=90)
    for name in ("plain", "turned", "cmyk", "camera"):
        (folder / f"{name}.txt").write_text(f"a picture {name}")
    config.dataset.root, config.filters = str(folder), FiltersConfig()
    config.filters.duplicates.exact = False
    curate_dir = run(config)
    stored = {
        sample.key: sample
        for shard in read_manifest(curate_dir).shards
        for sample in read_shard(curate_dir / shard.path)
    }
    for name in ("plain", "camera"):
        assert stored[name].image == (folder / f"{name}.jpg").read_bytes()
    for key, size in {"turned": (32, 48), "cmyk": (48, 32)}.items():
        image = Image.open(io.BytesIO(stored[key].image))
        assert (image.mode, image.size, dict(image.getexif())) == ("RGB", size, {})
        assert (stored[key].meta["width"], stored[key].meta["height"]) == size


def test_the_old_manifest_goes_before_the_first_shard_changes(config, monkeypatch):
    curate_dir = run(config)
    report = (curate_dir / "report.html").read_bytes()
    config.filters.clip_similarity.fraction = 0.5

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curate.pack.shard_tasks.write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert not (curate_dir / "manifest.json").exists()
    assert (curate_dir / "report.html").read_bytes() == report  # until there is another one
    run(config)
    assert read_manifest(curate_dir).totals["kept"] == 24


def test_the_old_manifest_goes_before_an_outdated_shard_does(config, monkeypatch):
    """No shard is written when only the last ones are left out: deleting them changes the set as well."""
    curate_dir = run(config)
    original = pipeline.write_shards

    def without_the_last(*args):
        packed = original(*args)
        return replace(packed, plans=packed.plans[:-1], shards=packed.shards[:-1])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_shards", without_the_last)
        patch.setattr(pipeline, "remove_stale", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert not (curate_dir / "manifest.json").exists()
