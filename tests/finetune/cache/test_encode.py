"""The cache holds what the encoders say, by content: only what is new is encoded, and once."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curate.measures import decode as images
from curate.pack.buckets import key_hashes
from curate.pack.sample import read_shard
from curate.pack.writer import write_shard
from curate.run.encoded import take_out
from curate.run.manifest import Manifest, read_manifest, write_manifest
from curate.run.schema import UserError
from finetune.cache import encode_shards, encoders, hold, load_split
from finetune.cache.encoders import pictures_at_once
from finetune.crop import to_square
from finetune.data import Batches
from finetune.models import load_model
from finetune.models.config import ModelConfig
from tests.curate.pack.oracle import plan
from workflows.prune import prune


@pytest.fixture
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


@pytest.fixture
def encoded(model, monkeypatch):
    """Pictures and captions that went through the encoders, without those that fill up a batch."""
    counted = {"pictures": 0, "captions": 0}
    for name, function in (("pictures", "_encode_pictures"), ("captions", "_encode_captions")):
        real = getattr(encoders, function)

        def count(model, items, name=name, real=real):
            counted[name] += len({id(item) for item in items})
            return real(model, items)

        monkeypatch.setattr(encoders, function, count)

    def since_last():
        found = counted["pictures"], counted["captions"]
        counted.update(pictures=0, captions=0)
        return found

    return since_last


@pytest.fixture
def make_run(tmp_path, random_curation):
    """A factory of curations of numbered pictures, each with two captions of its own."""
    _, picture = random_curation
    stored = {}

    def make(name, numbers, max_samples=1000, captions=None, split="train"):
        rows = {
            f"k{n}": {"key": f"k{n}", "split": split, "number": n, "captions": [f"a {n}", f"b {n}"]}
            for n in numbers
        }
        for key, changed in (captions or {}).items():
            rows[key]["captions"] = changed
        folder = tmp_path / name / "curate"
        infos = []
        for planned in plan({split: list(rows)}, max_samples):
            held = [rows[key] for key in planned.keys]
            for row in held:
                if row["number"] not in stored:
                    stored[row["number"]] = images.encode(picture(row["number"]), "png", 95)
            data = [stored[row["number"]] for row in held]
            infos.append(write_shard(folder, planned, held, "digest", "png", data))
        write_manifest(folder, Manifest(tuple(infos), {}, {}, "png"))
        return folder

    return make


def open_run(model, curate_dir, split="train"):
    """Encode and open a split as training does, with the cache beside the run."""
    cache, shards = curate_dir.parents[1] / ".cache", read_manifest(curate_dir).shards_of(split)
    encode_shards(model, curate_dir, shards, cache, progress=False)
    return load_split(model, shards, cache)


def latents_by_key(split):
    return dict(zip(split.keys, split.latents_of(torch.arange(len(split))), strict=True))


def packs_of(tmp_path, kind="*"):
    return sorted((tmp_path / ".cache").glob(f"{kind}/*/*.safetensors"))


def test_rows_are_what_the_encoders_say_about_each_sample(model, make_run, random_curation):
    _, picture = random_curation
    curate_dir = make_run("a", range(10), max_samples=4)
    split = open_run(model, curate_dir)
    shards = read_manifest(curate_dir).shards_of("train")
    samples = {s.key: s for info in shards for s in read_shard(curate_dir / info.path)}
    assert len(shards) >= 3
    assert split.keys == sorted(samples, key=lambda key: key_hashes([key])[0])
    assert split.captions == [samples[key].caption for key in split.keys]
    for index, key in enumerate(split.keys):
        image = picture(samples[key].meta["number"])
        pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None] / 127.5 - 1
        alone = model.vae.encode(pixels.float()).latent_dist.mean * 1.5
        at = torch.tensor([index])
        torch.testing.assert_close(split.latents_of(at), alone, atol=1e-5, rtol=1e-5)
        for place, caption in enumerate(samples[key].captions):
            which = torch.tensor([(place + 0.5) / 2])
            expected = model.encode_captions([caption])["hidden"]
            found = split.conditioning_of(at, which)["hidden"]
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    at, first = torch.tensor([0, 1]), torch.zeros(2)
    dropped = split.conditioning_of(at, first, torch.tensor([True, False]))["hidden"]
    assert torch.equal(dropped[0], model.encode_captions([""])["hidden"][0])
    assert torch.equal(dropped[1], split.conditioning_of(at, first)["hidden"][1])


def test_five_percent_more_encode_five_percent(model, make_run, encoded):
    open_run(model, make_run("a", range(100), max_samples=16))
    assert encoded() == (100, 200)
    split = open_run(model, make_run("a", range(105), max_samples=16))
    assert encoded() == (5, 10)
    assert len(split) == 105


def test_another_shard_run_or_split_and_fewer_captions_encode_nothing(model, make_run, encoded):
    whole = open_run(model, make_run("a", range(40), max_samples=16))
    encoded()
    for change in (
        {"max_samples": 3},
        {"max_samples": 1000},
        {"name": "b"},  # under the same root
        {"name": "c", "split": "val"},
        {"captions": {"k3": ["b 3"], "k7": ["b 7", "a 7"]}},
        {"numbers": range(10, 30)},
    ):
        split = change.get("split", "train")
        opened = open_run(model, make_run(**{"name": "a", "numbers": range(40)} | change), split)
        assert encoded() == (0, 0), change
        before, now = latents_by_key(whole), latents_by_key(opened)
        assert all(torch.equal(now[key], before[key]) for key in now)
    open_run(model, make_run("a", range(40), captions={"k3": ["another"]}))
    assert encoded() == (0, 1)


def test_each_encoder_is_known_by_its_own_weights_and_settings(
    model, pipeline_dir, make_run, encoded, tmp_path
):
    curate_dir = make_run("a", range(6))
    open_run(model, curate_dir)
    assert encoded() == (6, 12)

    def changed(module, setting=None):
        other = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
        with torch.no_grad():
            next(getattr(other, module).parameters()).add_(0.1)
        return other

    open_run(changed("unet"), curate_dir)
    assert encoded() == (0, 0)
    open_run(changed("vae"), curate_dir)
    assert encoded() == (6, 0)
    open_run(changed("text_encoder"), curate_dir)
    assert encoded() == (0, 12)
    open_run(load_model(ModelConfig(path=str(pipeline_dir), resolution=24)), curate_dir)
    assert encoded() == (6, 0)
    shutil.copytree(pipeline_dir, tmp_path / "scaled")
    config = tmp_path / "scaled" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 1.5', '"scaling_factor": 2.5'))
    open_run(load_model(ModelConfig(path=str(tmp_path / "scaled"), resolution=16)), curate_dir)
    assert encoded() == (6, 0)
    open_run(model, curate_dir)
    assert encoded() == (0, 0)


def test_shards_are_not_opened_for_what_the_cache_holds(model, make_run, monkeypatch):
    curate_dir = make_run("a", range(10), max_samples=4)
    before = latents_by_key(open_run(model, curate_dir))
    for path in curate_dir.rglob("*.tar"):
        path.unlink()
    now = latents_by_key(open_run(model, curate_dir))
    assert all(torch.equal(now[key], before[key]) for key in before)


def test_a_latent_does_not_depend_on_what_is_encoded_with_it(model, make_run, tmp_path):
    """To the bit: a batch of another size would change the last one."""
    whole = latents_by_key(open_run(model, make_run("a", range(45))))
    first = packs_of(tmp_path)
    shutil.rmtree(tmp_path / ".cache")
    for numbers in ([44], range(7), range(5, 30), range(45)):
        parts = latents_by_key(open_run(model, make_run("b", numbers)))
        assert all(torch.equal(parts[key], whole[key]) for key in parts)
    assert len(packs_of(tmp_path, "latents")) == 4
    shutil.rmtree(tmp_path / ".cache")
    open_run(model, make_run("a", range(45)))
    assert packs_of(tmp_path) == first  # the same names, so the same bytes


def test_the_size_of_shards_does_not_change_the_batches(model, make_run):
    def batches(max_samples):
        split = open_run(model, make_run("a", range(30), max_samples))
        sequence = Batches(split, batch_size=8, caption_dropout=0.2, timesteps=100, seed=3)
        return [sequence(number) for number in range(9)]

    for one, other in zip(batches(1000), batches(4), strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.conditioning["hidden"], other.conditioning["hidden"])


def test_large_pictures_go_through_the_vae_in_small_batches(model, make_run, monkeypatch):
    """512 px would take 16 times the memory of 128 px; the latents are the same but for rounding."""
    assert [pictures_at_once(side) for side in (16, 128, 512, 4096)] == [32, 32, 2, 1]
    whole = open_run(model, make_run("a", range(3)))
    sizes = []
    real = type(model).encode_images

    def counted(self, images):
        sizes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(type(model), "encode_images", counted)
    model.resolution = 512
    open_run(model, make_run("a", range(3)))
    assert sizes == [2, 2]
    shutil.rmtree(make_run("a", range(3)).parents[1] / ".cache")
    monkeypatch.setattr("finetune.cache.encoders.pictures_at_once", lambda _: 1)
    model.resolution = 16
    single = open_run(model, make_run("a", range(3)))
    at = torch.arange(3)
    torch.testing.assert_close(single.latents_of(at), whole.latents_of(at), atol=1e-5, rtol=1e-5)


def test_captions_are_encoded_as_the_pipeline_does(model):
    captions = ["red bar", "a very long caption of letters", ""]
    theirs = model.pipeline().encode_prompt(captions, "cpu", 1, False)[0]
    torch.testing.assert_close(model.encode_captions(captions)["hidden"], theirs)


def test_an_interruption_loses_no_written_pack(model, make_run, encoded, monkeypatch):
    monkeypatch.setattr(encoders, "ENTRIES", 32)
    curate_dir = make_run("a", range(100), max_samples=16)
    real, calls = type(model).encode_images, []

    def killed(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "encode_images", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(model, curate_dir)
    encoded()
    open_run(model, curate_dir)
    assert encoded()[0] == 100 - 64


def test_temporary_files_stay_as_long_as_their_writer_may_live(model, make_run):
    curate_dir = make_run("a", range(3))
    folder = curate_dir.parents[1] / ".cache"
    names = ("shards/.a.json.1.part", "latents/of another/.b.safetensors.2.part")
    young, *old = (folder / name for name in ("latents/x/.c.safetensors.3.part", *names))
    for path in (young, *old):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (0, 0))
    open_run(model, curate_dir)
    assert list(folder.rglob("*.part")) == [young]


def test_two_trainings_at_once_do_not_disturb_each_other(
    model, pipeline_dir, make_run, monkeypatch
):
    """The second one encodes everything while the first one is at its first batch."""
    curate_dir = make_run("a", range(50), max_samples=16)
    other = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    real, opened = type(model).encode_images, []

    def meanwhile(self, images):
        if self is model and not opened:
            opened.append(open_run(other, curate_dir))
        return real(self, images)

    monkeypatch.setattr(type(model), "encode_images", meanwhile)
    first = open_run(model, curate_dir)
    at = torch.arange(50)
    assert torch.equal(first.latents_of(at), opened[0].latents_of(at))


@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_a_shard_that_is_not_the_manifests_is_named(model, make_run, change, tmp_path):
    curate_dir = make_run("a", range(10), max_samples=6)
    shard = read_manifest(curate_dir).shards_of("train")[1]
    path = curate_dir / shard.path
    content = bytearray(path.read_bytes())
    place = content.index(b"a ", 600)  # a caption
    content[place] ^= 2
    path.unlink()
    if change != "gone":
        path.write_bytes(content if change == "flip" else content[:-512])
    with pytest.raises(UserError) as said:
        open_run(model, curate_dir)
    assert str(path) in str(said.value)
    assert f"python -m curate.verify {tmp_path}/a;" in str(said.value)
    assert "delete the damaged tars and type: python -m curate" in str(said.value)


def test_a_latent_that_is_not_finite_names_shard_and_sample(model, make_run, tmp_path):
    with torch.no_grad():
        next(model.vae.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"train/000000\.tar: the latent of k\d+ is not finite"):
        open_run(model, make_run("a", range(10)))
    assert packs_of(tmp_path, "latents") == []


def test_the_shorter_side_fills_the_square_and_the_centre_stays():
    wide = Image.new("RGB", (64, 32), "black")
    wide.paste("white", (16, 0, 48, 32))
    inside = (1, 1, 15, 15)  # the kernel reaches a little beyond the crop
    assert to_square(wide, 16).crop(inside).getextrema() == ((255, 255),) * 3
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert to_square(tall, 16).crop(inside).getextrema() == ((255, 255),) * 3
    assert to_square(wide, 16).size == (16, 16)


def test_every_flipped_bit_of_the_cache_is_found_and_healed(model, make_run, tmp_path, capsys):
    curate_dir = make_run("a", range(6), max_samples=4)
    split = open_run(model, curate_dir)
    at, which = torch.arange(6), torch.linspace(0, 0.99, 6)
    latents, hidden = split.latents_of(at), split.conditioning_of(at, which)["hidden"]
    del split
    rng = np.random.default_rng(0)
    for trial in range(60):
        files = sorted((tmp_path / ".cache").rglob("*.[js]*"))  # all but the locks
        path = files[trial % len(files)]
        content = bytearray(path.read_bytes())
        size = len(content) if trial % 2 else min(len(content), 400)  # also in the header
        bit = int(rng.integers(8 * size))
        content[bit // 8] ^= 1 << bit % 8
        path.unlink()  # it may be mapped
        path.write_bytes(content)
        again = open_run(model, curate_dir)
        assert torch.equal(again.latents_of(at), latents)
        assert torch.equal(again.conditioning_of(at, which)["hidden"], hidden)
        assert f"{path} is damaged" in capsys.readouterr().out


def test_a_split_does_not_open_with_entries_missing(model, make_run, tmp_path):
    curate_dir = make_run("a", range(6))
    open_run(model, curate_dir)
    packs_of(tmp_path, "conditioning")[0].unlink()
    shards = read_manifest(curate_dir).shards_of("train")
    with pytest.raises(RuntimeError, match="has lost files; the same command again"):
        load_split(model, shards, tmp_path / ".cache")


def test_a_split_in_use_is_held_and_counts_as_used(model, make_run, tmp_path):
    curate_dir = make_run("a", range(6))
    shards = read_manifest(curate_dir).shards_of("train")
    encode_shards(model, curate_dir, shards, tmp_path / ".cache")
    assert len(prune(tmp_path / ".cache", 0).busy) == 3
    hold._release(id(model))
    load_split(model, shards, tmp_path / ".cache")
    files = sorted((tmp_path / ".cache").rglob("*.[js]*"))
    for path in files:
        os.utime(path, (0, 0))
    done = prune(tmp_path / ".cache", 0)
    assert (done.freed, len(done.busy)) == ([], 3)
    assert {path.parent for path in files} == {
        Path(line.split()[6].rstrip(":")) for line in done.busy
    }
    open_run(model, curate_dir)
    assert min(path.stat().st_mtime for path in files) > 0


def test_removed_pictures_leave_the_cache_and_others_stay(model, make_run, encoded, tmp_path):
    """Two runs have them; what is taken out is encoded again for the other one, and nothing else."""
    one, other = make_run("a", range(10), captions={"k3": ["a 3", "a 4"]}), make_run("b", range(12))
    open_run(model, one)
    before = latents_by_key(open_run(model, other))
    encoded()
    [shard] = read_manifest(one).shards_of("train")
    sample = next(s for s in read_shard(one / shard.path) if s.key == "k3")
    gone = hashlib.sha256(sample.image).digest()
    others = [s for s in read_shard(one / shard.path) if s.key != "k3"]
    left = {text for s in others for text in s.captions}
    texts = {hashlib.sha256(text.encode()).digest() for text in set(sample.captions) - left}
    found = take_out(tmp_path / ".cache", {gone}, texts)
    assert found == {"latents": 1, "conditioning": 1, "shards": 2}
    assert not any(gone in path.read_bytes() for path in packs_of(tmp_path))
    after = latents_by_key(open_run(model, other))
    assert encoded() == (1, 1)
    assert all(torch.equal(after[key], before[key]) for key in before)
