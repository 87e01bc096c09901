"""Several views of a picture: each is the VAE's of the crop that it says, and chance chooses one for each visit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curate.pack.sample import read_shard
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune.cache import encode_shards, load_split
from finetune.cache.framing import Framing, View
from finetune.cache.packs import content_hash
from finetune.crop import Crop
from finetune.data import Batches
from finetune.models import load_model
from tests.finetune import conftest
from tests.finetune.conftest import picture
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]

SHAPES = [(60, 20), (20, 80), (40, 40), (64, 48)]  # width and height
VIEWS = {"data.flip": True, "data.crops": 3}


@pytest.fixture(autouse=True)
def _shapes(monkeypatch):
    monkeypatch.setattr(
        conftest, "picture", lambda seed: picture(seed, 80).resize(SHAPES[seed % 4])
    )


def opened(config, side="train"):
    model = load_model(config.model)
    shards = read_manifest(config.curate_dir).shards_of(side)
    framing = Framing.of(config, side, all_views=True)
    cache = Path(config.run.root, ".cache")
    encode_shards(model, config.curate_dir, shards, cache, framing, progress=False)
    return model, load_split(model, shards, cache, framing)


def stored(config) -> dict[str, bytes]:
    return {
        sample.key: sample.image
        for info in read_manifest(config.curate_dir).shards_of("train")
        for sample in read_shard(config.curate_dir / info.path)
    }


def latent_of(model, image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    return model.vae.encode(pixels.float()).latent_dist.mean[0] * 1.5


@pytest.mark.parametrize("changes", [{}, {"buckets.enabled": True, "buckets.step": 8}])
@torch.no_grad()
def test_each_view_is_the_vaes_of_the_part_it_shows_mirrored_or_not(make_config, changes):
    """The flipped latents are those of the flipped picture; crops lie inside it and differ where they can."""
    config = make_config(**VIEWS, **changes)
    model, split = opened(config)
    bytes_of = stored(config)
    assert split.views == 6
    moving = 0
    for place, key in enumerate(split.keys):
        image = Image.open(io.BytesIO(bytes_of[key]))
        at = torch.tensor([place])
        height, width = (4 * side for side in split.shape_of(place)[1:])
        scale = max(height / image.height, width / image.width)
        spare = image.width - width / scale, image.height - height / scale
        views = [split.latents_of(at, torch.tensor([view]))[0] for view in range(6)]
        for number in range(3):
            if number == 0:
                down, across = 0.5, 0.5
            else:
                seed = [int.from_bytes(content_hash(bytes_of[key]), "little"), number]
                down, across = np.random.default_rng(seed).random(2)
            left, top = spare[0] * across, spare[1] * down
            box = (left, top, left + width / scale, top + height / scale)
            part = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
            if max(spare) * scale < 1:
                part = image.resize((width, height), Image.Resampling.BICUBIC)
                assert torch.equal(views[2 * number], views[0])
            turned = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            torch.testing.assert_close(
                views[2 * number], latent_of(model, part), atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(
                views[2 * number + 1], latent_of(model, turned), atol=1e-4, rtol=1e-4
            )
            assert not torch.allclose(views[2 * number], views[2 * number + 1], atol=1e-2)
        moving += not torch.equal(views[0], views[2])
    assert moving == (3 if changes else 9)  # in buckets only 64x48, which is cut to 16x16
    plain = split.latents_of(torch.arange(len(split)))
    assert all(
        torch.equal(plain[n], split.latents_of(torch.tensor([n]), torch.tensor([0]))[0])
        for n in range(len(split))
    )


def test_the_corner_of_a_mirrored_crop_is_counted_in_the_mirrored_picture():
    """By finding a mark: a bright column at the left edge of the crop is at the right edge of the mirrored one."""
    size, target = (400, 100), (50, 50)
    for across in (0.0, 0.2, 1.0):
        crop, mirrored = (Crop.of(size, target, (0.5, across), flag) for flag in (False, True))
        assert crop.corner == (0, round(150 * across))
        assert mirrored.corner == (0, 200 - 50 - crop.corner[1])
        image = Image.new("L", size)
        image.paste(255, (2 * crop.corner[1], 0, 2 * crop.corner[1] + 10, 100))
        mask = Image.new("L", (200, 50))
        mask.paste(255, (crop.corner[1], 0, crop.corner[1] + 5, 50))
        for each in (image, mask):  # another size of the same shape has the same part cut out
            plain, turned = (np.array(c.cut(each), float) for c in (crop, mirrored))
            assert plain[:, :4].min() > 200
            assert plain[:, 7:].max() < 50
            np.testing.assert_array_equal(plain[:, ::-1], turned)


def test_sdxl_is_given_the_corner_of_each_view(make_config, xl_dir):
    config = make_config(**VIEWS)
    config.model.path, config.model.resolution = str(xl_dir), 32
    _, split = opened(config)
    bytes_of = stored(config)
    for place, key in enumerate(split.keys):
        image = Image.open(io.BytesIO(bytes_of[key]))
        ids = [
            split.conditioning_of(torch.tensor([place]), views=torch.tensor([view]))["time_ids"][0].tolist()
            for view in range(6)
        ]  # fmt: skip
        wide = max(round(32 * image.width / image.height), 32)
        for plain, turned in zip(ids[::2], ids[1::2], strict=True):
            assert plain[:2] == turned[:2] == [image.height, image.width]
            assert plain[2] == turned[2]
            assert turned[3] == pytest.approx(wide - 32 - plain[3], abs=1)
            assert plain[4:] == turned[4:] == [32, 32]
        if image.width > image.height:
            assert len({each[3] for each in ids}) > 2
    assert set(map(type, View((32, 32), 2, True).cropped((60, 20), b"a" * 32).place)) == {float}


def test_a_visits_view_depends_on_seed_and_place_alone_and_each_comes_as_often(make_config):
    _, split = opened(make_config(**VIEWS))

    def drawn(size=4, rank=0, world_size=1, seed=0):
        made = Batches(split, batch_size=size, caption_dropout=0, timesteps=10, seed=seed,
                       rank=rank, world_size=world_size)  # fmt: skip
        places = lambda number: range(number * size, (number + 1) * size)[made.share]  # noqa: E731
        return lambda number: made._views(made._visits(places(number))).tolist()

    whole = [view for number in range(600) for view in drawn()(number)]
    counts = np.bincount(whole, minlength=6)
    assert (abs(counts - 400) < 4 * (2400 / 6 * 5 / 6) ** 0.5).all()
    assert [v for n in range(300) for v in drawn(size=8)(n)] == whole
    halves = [drawn(rank=rank, world_size=2)(7) for rank in (0, 1)]
    assert [view for pair in zip(*halves, strict=True) for view in pair] == whole[28:32]
    assert [view for number in range(600) for view in drawn(seed=1)(number)] != whole
    batch = Batches(split, batch_size=4, caption_dropout=0, timesteps=10, seed=0)(3)
    for key, latent, view in zip(batch.keys, batch.latents, whole[12:16], strict=True):
        at = torch.tensor([split.keys.index(key)])
        assert torch.equal(latent, split.latents_of(at, torch.tensor([view]))[0])


def test_a_run_says_its_views_and_holds_out_the_centre(make_config, run_training, capsys):
    config = make_config(**VIEWS)
    run_training(config)
    out = capsys.readouterr().out
    assert (
        "views   6 of each picture, one by chance at each visit: 3 crops (25.0% of the pictures"
        in out
    )
    assert "0.0% of the captions say left or right" in out
    plain = make_config("plain")
    run_training(plain)
    with (
        np.load(config.folder / "heldout.npz") as ours,
        np.load(plain.folder / "heldout.npz") as theirs,
    ):
        assert (
            ours["val"][0] == theirs["val"][0]
        ).mean() > 0.3  # but for other pictures' keys: none
        np.testing.assert_array_equal(ours["val"][0], theirs["val"][0])
        np.testing.assert_array_equal(ours["probe"][0], theirs["probe"][0])
        assert (ours["val"][-1] != theirs["val"][-1]).any()
    with pytest.raises(UserError, match=r"was started with data\.flip=True, not False"):
        run_training(make_config())


def test_crops_of_squares_alone_are_refused(make_config, run_training, monkeypatch):
    monkeypatch.setattr(conftest, "picture", lambda seed: picture(seed, 20))
    with pytest.raises(
        UserError, match=r"data\.crops=2 has no effect: every picture has the shape"
    ):
        run_training(make_config(**{"data.crops": 2}))
    with pytest.raises(UserError, match=r"data\.crops=9 is out of range"):
        make_config(**{"data.crops": 9})
