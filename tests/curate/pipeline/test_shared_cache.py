"""Whole curations that share measurements: the same bytes, commands that go on working, removals that reach all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save

from curate import calibrate, readers, remove
from curate.annotate.config import AnnotateConfig
from curate.annotate.parts import read_part
from curate.clip import scorer as clip
from curate.clip.config import ClipConfig
from curate.decide.config import SplitConfig
from curate.explain import explain
from curate.filters.config import FiltersConfig
from curate.filters.similarity import ClipSimilarityConfig
from curate.pack.config import ShardsConfig
from curate.pack.sample import read_shard
from curate.pipeline import full, trial
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import ledger, tag_variants
from curate.run.config import RunConfig
from curate.run.files import sha256_of
from curate.run.manifest import read_manifest
from curate.run.tag_variants import Variants
from curate.verify import problems


@pytest.fixture
def config(tiny_clip, make_pictures, tmp_path):
    pictures = make_pictures(tmp_path / "pictures", 40)
    return CurateConfig(
        run=RunConfig(root=str(tmp_path / "runs"), name="mine-0001"),
        dataset=FolderConfig(name="small", reader="folder", root=str(pictures)),
        clip=ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu", batch_size=8),
        filters=FiltersConfig(clip_similarity=ClipSimilarityConfig(fraction=0.75)),
        split=SplitConfig(val=0.1, test=0.1, minimum=4),
        shards=ShardsConfig(max_samples=10),
        annotate=AnnotateConfig(images_per_part=16),
    )


@pytest.fixture
def scored(monkeypatch):
    """How many pictures CLIP was given since the last look."""
    real, seen = clip.ClipScorer.encode_pixels, []
    monkeypatch.setattr(
        clip.ClipScorer,
        "encode_pixels",
        lambda self, pixels: seen.extend(pixels) or real(self, pixels),
    )

    def look():
        count = len(seen)
        seen.clear()
        return count

    return look


def curate(config, name=None, root=None):
    chosen = replace(config.run, name=name or config.run.name, root=root or config.run.root)
    config = replace(config, run=chosen)
    full.run(config, readers.read(config.dataset))
    return config.run.folder / "curate"


@pytest.mark.slow
def test_five_percent_more_in_a_new_run_score_five_percent(
    config, make_pictures, tmp_path, scored, bytes_of
):
    curate(config)
    assert scored() == 40
    make_pictures(Path(config.dataset.root), 42)
    second = curate(config, "mine-0002")
    assert scored() == 2
    alone = curate(config, "mine-0002", root=str(tmp_path / "alone"))
    assert scored() == 42
    assert bytes_of(second) == bytes_of(alone)  # annotations, ledger, shards, manifest, funnel
    assert list(problems(second, images=True)) == []
    [key] = ledger.read(second)["key"].tail(1)
    assert "kept" in next(explain(second, [key])) or "dropped" in next(explain(second, [key]))
    said = list(calibrate.lines(calibrate._of_run(str(second.parent)), [], 0.05, False))
    assert said == list(calibrate.lines(calibrate._of_run(str(alone.parent)), [], 0.05, False))


def test_a_trial_measures_all_that_it_forecasts(config, scored):
    curate(config)
    scored()
    config = replace(config, dry_run=20)
    trial.run(config, readers.read(config.dataset))
    assert scored() == 20


def test_a_cache_that_holds_more_than_wanted_is_noted(config, capsys, tmp_path):
    config.run.cache_gb = 0
    curate(config)
    assert "more than run.cache_gb" not in capsys.readouterr().out  # all of it is the run's
    shutil.rmtree(tmp_path / "runs/mine-0001")
    curate(config)
    assert "more than run.cache_gb=0;" in capsys.readouterr().out


def test_offline_a_model_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    """Unless something was measured: then all may have been."""
    arguments = ["dataset=folder", f"dataset.root={tmp_path}/none", f"run.root={tmp_path}/runs"]
    (tmp_path / "none").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "none/a.png")
    done = subprocess.run(
        [sys.executable, "-m", "curate", *arguments, "run.name=x"],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists()


def picture_of(config, key):
    return Path(config.dataset.root, f"{key}.png")


def removed(config, *keys, name="mine-0001", options=()):
    listed = Path(config.run.root, "list")
    listed.write_text("\n".join(keys))
    command = [sys.executable, "-m", "curate.remove", str(Path(config.run.root, name))]
    done = subprocess.run(
        [*command, "--keys", str(listed), *options], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_store(config, column="sha256"):
    paths = Path(config.run.root, ".cache/annotations").glob("*/part-*.parquet")
    return {value for path in paths for value in read_part(path)[column].to_pylist()}


def test_a_removal_reaches_what_all_runs_share(config, scored):
    first = curate(config)
    curate(config, "mine-0002")
    table = ledger.read(first)
    key, other = table.loc[table["kept"], "key"].tolist()[:2]
    dropped = table.loc[~table["kept"], "key"].tolist()[0]
    record = {path.name: path.read_bytes() for path in (first / "annotations").iterdir()}
    said = removed(config, key, dropped)
    gone = {sha256_of(picture_of(config, each)) for each in (key, dropped)}
    assert not gone & in_store(config)
    captions = {
        picture_of(config, each).with_suffix(".txt").read_text().strip() for each in (key, dropped)
    }
    assert not captions & in_store(config, "caption")
    assert sha256_of(picture_of(config, other)) in in_store(config)
    assert record == {path.name: path.read_bytes() for path in (first / "annotations").iterdir()}
    cache_dir, other_run = Path(config.run.root, ".cache"), Path(config.run.root, "mine-0002")
    assert f"deleted from {cache_dir}: the measurements of 2 pictures" in said
    assert (
        f"still in the run's own record; to delete them, type: rm -r {first / 'annotations'}"
        in said
    )
    assert (
        f"run mine-0002 holds 1 of them; type: python -m curate.remove {other_run} --keys" in said
    )
    assert list(problems(first)) == []
    scored()
    curate(config)  # finds them in its record, and brings nothing back
    curate(config)
    assert scored() == 0
    assert not gone & in_store(config)
    shutil.rmtree(first / "annotations")
    third = curate(config)
    assert scored() == 2  # they are still in the folder of pictures
    assert not gone & in_store(config)
    assert (ledger.read(third).set_index("key").loc[[key, dropped], "reason"] == "removed").all()


def test_an_interrupted_removal_is_completed_in_the_cache_too(config, monkeypatch):
    first = curate(config)
    keys = ledger.read(first).query("kept")["key"].tolist()[:3]
    gone = {sha256_of(picture_of(config, key)) for key in keys}
    with monkeypatch.context() as patch:
        patch.setattr(
            remove.removed_from_cache, "take_out", lambda *_: (_ for _ in ()).throw(OSError)
        )
        with pytest.raises(OSError):  # noqa: PT011 (as sudden as that)
            remove.remove(first, "keys", set(keys), "0" * 64)
    assert gone <= in_store(config)
    remove.remove(first, "keys", set(keys), "0" * 64)
    assert not gone & in_store(config)
    samples = [s for shard in read_manifest(first).shards for s in read_shard(first / shard.path)]
    assert not {sample.key for sample in samples} & set(keys)


def test_latents_go_by_what_a_shard_stored(config):
    """Pictures of a mixed data set are encoded again, so that their hash is not the source's."""
    root = Path(config.dataset.root)
    for number in range(10):
        path = root / f"{number:04d}.png"
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    config.filters = FiltersConfig()
    first = curate(config)
    samples = {
        s.key: s for shard in read_manifest(first).shards for s in read_shard(first / shard.path)
    }
    known = ledger.read(first).set_index("key")["sha256"]
    stored = {key: hashlib.sha256(sample.image).hexdigest() for key, sample in samples.items()}
    key = next(key for key in sorted(stored) if stored[key] != known[key])
    listing = Path(config.run.root, ".cache/shards/x.json")
    listing.parent.mkdir()
    listing.write_text("hash\n" + json.dumps({"pictures": [stored[key]]}))
    assert "1 listings of shards" in removed(config, key)
    assert not listing.exists()


def test_a_removal_reaches_all_variants_of_a_caption_of_tags(config):
    """By whatever settings they were made; what another picture's caption says stays."""
    root = Path(config.dataset.root)
    for number in range(40):
        (root / f"{number:04d}.txt").write_text(f"ohwx, a {number}, red, blue")
    config.filters = FiltersConfig()
    key, other = ledger.read(curate(config)).query("kept")["key"].tolist()[:2]
    cache_dir = Path(config.run.root, ".cache")
    ways = [Variants(True, 1, 0.0, 8), Variants(False, 0, 0.4, 4)]
    for variants in ways:
        tag_variants.note(cache_dir, variants)
    encoded = {
        each: {text for way in ways for text in way.texts([f"ohwx, a {int(each)}, red, blue"])}
        for each in (key, other)
    }
    digests = {
        each: {hashlib.sha256(text.encode()).digest() for text in texts}
        for each, texts in encoded.items()
    }
    own = digests[key] - digests[other]
    assert len(own) > 4
    write_pack(cache_dir / "conditioning/x", sorted(encoded[key] | encoded[other]))
    removed(config, key)
    left = {
        row.tobytes()
        for path in (cache_dir / "conditioning").glob("*/*.safetensors")
        for row in load_file(path)["content_hashes"]
    }
    assert not left & own
    assert digests[other] - digests[key] <= left


def write_pack(folder, texts):
    hashes = [[*hashlib.sha256(text.encode()).digest()] for text in texts]
    content = save({"content_hashes": np.array(hashes, np.uint8)})
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)


def test_a_removal_waits_for_another_one(config):
    from curate.run.locks import locked

    first = curate(config)
    before = (first / "manifest.json").read_bytes()
    listed = Path(config.run.root, "list")
    listed.write_text(ledger.read(first).query("kept")["key"].iloc[0])
    with locked(Path(config.run.root, ".cache")):
        done = subprocess.run(
            [sys.executable, "-m", "curate.remove", str(first.parent), "--keys", str(listed)],
            capture_output=True, text=True, env=os.environ,
        )  # fmt: skip
    assert done.returncode == 75
    assert (first / "manifest.json").read_bytes() == before
    assert not (first / "removed.json").exists()
