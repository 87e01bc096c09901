"""Masks: their weights, the loss that they change, and whole trainings with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from curate.measures.decode import decode
from curate.run.schema import UserError
from finetune import base_check, companions, doctor, joined, masks
from finetune.cache import encode_shards, load_split
from finetune.cache.framing import Framing, View
from finetune.checkpoint import best_of, list_checkpoints
from finetune.conditioning import Conditioning
from finetune.config import ObjectiveConfig
from finetune.config.pictures import CacheConfig
from finetune.crop import to_square
from finetune.heldout import HeldoutGrid, HeldoutItems
from finetune.models import load_model
from finetune.objective import NoiseSchedule, denoising_loss
from finetune.opened_run import load_run
from tests.finetune.conftest import curate, digests

SCHEDULE = NoiseSchedule(torch.tensor([0.9, 0.5]), torch.tensor([0.19, 0.75]).sqrt(), "epsilon")


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def half(seed: int) -> bytes:
    """White on the left, black on the right, of 16 px."""
    return png(np.repeat([[255] * 8 + [0] * 8], 16, axis=0).astype(np.uint8))


def test_weights_are_means_of_what_the_picture_keeps():
    """A wide mask is cropped at the sides like its picture; by kohya's area interpolation then."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 24), np.uint8)
    found = masks.weights(masks.grey(png(pixels)), View((16, 16)), 4, 0.0)
    kept = torch.from_numpy(pixels[:, 4:20]).float()[None, None] / 255
    torch.testing.assert_close(found[None], F.interpolate(kept, size=(4, 4), mode="area"))
    picture = np.asarray(to_square(decode(png(np.dstack([pixels] * 3))), 16))
    np.testing.assert_array_equal(picture[..., 0], pixels[:, 4:20])
    assert masks.weights(
        masks.grey(half(0)), View((16, 16)), 4, 0.1
    ).unique().tolist() == pytest.approx([0.1, 1])


def test_alpha_counts_where_it_says_something():
    grey = np.full((16, 16), 200, np.uint8)
    alpha = np.full((16, 16), 255, np.uint8)
    assert masks.grey(png(np.dstack([grey, alpha]))).getextrema() == (200, 200)
    alpha[:8] = 0
    assert masks.grey(png(np.dstack([grey, alpha]))).getextrema() == (0, 255)
    np.testing.assert_array_equal(masks.grey(png(np.dstack([grey] * 3 + [alpha]))), alpha)


def test_the_loss_is_the_plain_mean_of_weighted_squares():
    torch.manual_seed(0)
    latents, noise, guess = torch.randn(3, 2, 4, 3, 5).unbind(0)
    mask = torch.rand(2, 1, 3, 5)
    mask[1] = 1
    texts = {"hidden": torch.zeros(2, 1, 1)}
    steps = torch.tensor([0, 1])

    def loss(**more):
        conditioning = Conditioning(texts | more, frozenset(more))
        return denoising_loss(lambda *_: guess, SCHEDULE, latents, noise, steps, conditioning)

    whole, weighted = loss(), loss(mask=mask)
    by_hand = sum(
        (mask[0, 0, y, x] * (guess - noise)[0, c, y, x] ** 2).item()
        for c in range(4)
        for y in range(3)
        for x in range(5)
    )
    assert weighted[0].item() == pytest.approx(by_hand / 60)
    assert weighted[1] == whole[1]
    assert weighted[0] < whole[0]


def test_nothing_predicts_as_badly_as_the_base_check_says_under_a_mask():
    """The expected loss of the prediction 0, by 4,000 noises of each level and picture."""
    torch.manual_seed(0)
    latents, mask = torch.randn(2, 4, 4, 4) * 1.5, torch.rand(2, 1, 4, 4)
    conditioning = Conditioning({"mask": mask, "hidden": torch.zeros(2, 1, 1)}, frozenset(["mask"]))
    items = HeldoutItems(["a", "b"], latents, conditioning, ["a", "b"])
    schedule = NoiseSchedule(SCHEDULE.alphas, SCHEDULE.sigmas, "v_prediction")
    grid = HeldoutGrid(bins=2, draws=1)
    found = base_check.compare(schedule, items, grid, np.ones((2, 2, 1), np.float32))
    for level in found.levels:
        target = schedule.target(
            latents.repeat(4000, 1, 1, 1),
            torch.randn(8000, 4, 4, 4),
            torch.full((8000,), level.timestep),
        )
        simulated = (target.square() * mask.repeat(4000, 1, 1, 1)).mean().item()
        assert level.nothing == pytest.approx(simulated, rel=0.02)
    assert found.scale == pytest.approx(latents.square().mean().sqrt().item())


@pytest.fixture
def masked(make_config, tmp_path):
    """A factory of configurations over a curation whose pictures have the masks of a function of their seed."""

    def make(name, beside, **changes):
        curate(tmp_path / name / "curate", {"train": 12, "val": 6}, beside=beside)
        return make_config(name, **changes)

    return make


def test_white_masks_change_nothing_and_black_ones_leave_nothing_to_learn(masked, run_training):
    white, black = (png(np.full((16, 16), value, np.uint8)) for value in (255, 0))
    off = {
        "train.samples": 16,
        "optim.weight_decay": 0.0,
        "ema.decay": None,
        "doctor.captions": "off",
    }
    on = {**off, "objective.mask": True}
    plain = masked("plain", lambda seed: {"mask": white}, **off)
    whole = masked("whole", lambda seed: {"mask": white}, **on)
    none = masked("none", lambda seed: {"mask": black}, **on, **{"heldout.items": 0})
    for config in (plain, whole, none):
        run_training(config)
    weights = [best_of(list_checkpoints(c.folder)).weights() for c in (plain, whole, none)]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])
    base = load_run(none.run.folder).model().unet.state_dict()
    assert all(torch.equal(weight, base[name]) for name, weight in weights[2].items())
    assert not torch.equal(weights[0]["conv_out.weight"], base["conv_out.weight"])


def test_held_out_losses_and_a_second_look_at_them_are_masked(masked, run_training, capsys):
    """Every second picture has a mask; losses of the others are those without masks."""
    beside = lambda seed: {"mask": half(seed)} if seed % 2 else {}  # noqa: E731
    off = {"train.samples": 4}
    plain = masked("plain", beside, **off)
    run_training(plain)
    note = "note: 6 of 12 training pictures have a mask, which is not used"
    doctor.examine(plain, joined.read(plain))
    assert note in capsys.readouterr().out
    config = masked("masked", beside, **off, **{"objective.mask": True})
    run_training(config)
    before = digests(config)
    run_training(config)  # complete
    assert digests(config) == before
    curves = [np.load(each.folder / "heldout.npz") for each in (plain, config)]
    keys = curves[0]["val_keys"].tolist()
    assert keys == curves[1]["val_keys"].tolist()
    base = [curve["val"][0] for curve in curves]
    has = np.array([(12 + int(key.rpartition("-")[2])) % 2 == 1 for key in keys])
    assert 0 < has.sum() < len(has)
    np.testing.assert_array_equal(base[0][~has], base[1][~has])
    assert (base[1][has] < 0.75 * base[0][has]).all()
    run = load_run(config.run.folder)
    mask = run.items("val", 4).conditioning["mask"]
    expected = torch.tensor([0.0, 1.0]).repeat_interleave(2).flip(0).expand(1, 4, 4)
    for row, there in zip(mask, has, strict=True):
        assert torch.equal(row, expected if there else torch.ones(1, 4, 4))


def test_a_mirrored_picture_has_a_mirrored_mask(masked):
    """Masks are white on the left; of the view that is mirrored on the right."""
    config = masked("flipped", lambda seed: {"mask": half(seed)}, **{"data.flip": True})
    config.objective.mask = True
    model, shards = load_model(config.model), joined.read(config).shards_of("train")
    data = config.curate_dir, shards, tmp_cache(config), Framing.of(config, "train", all_views=True)
    encode_shards(model, *data)
    companions.encode(config, model, *data)
    split = companions.attach(load_split(model, *data[1:]), config, model, *data)
    assert split.views == 2
    found = [
        split.conditioning_of(torch.tensor([3]), views=torch.tensor([view]))["mask"][0, 0, 0]
        for view in (0, 1)
    ]
    assert [row.tolist() for row in found] == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_masks_are_made_once_however_latents_are_kept(masked):
    """Also for both splits: what is made of one picture is one folder's."""
    config = masked("kept", lambda seed: {"mask": half(0)}, **{"objective.mask": True})
    model, manifest = load_model(config.model), joined.read(config)
    folders = []
    for kept in ({}, {"latents": "posterior"}, {"precision": "fp16"}):
        config.cache = CacheConfig(**kept)
        for split in ("train", "val"):
            framing = Framing.of(config, split, all_views=True)
            data = config.curate_dir, manifest.shards_of(split), tmp_cache(config), framing
            companions.encode(config, model, *data)
            folders.append(sorted((tmp_cache(config) / "latents").rglob("*.safetensors")))
    assert [len(each) for each in folders] == [1] * 6


def tmp_cache(config):
    return config.run.folder.with_name(".cache")


@pytest.mark.parametrize("way", ["buckets.enabled", "data.crops"])
def test_other_cuts_are_refused(make_config, way):
    config = make_config(**{way: 2 if way == "data.crops" else True, "objective.mask": True})
    with pytest.raises(UserError, match=r"takes pictures as squares from the centre"):
        doctor.examine_settings(config)


def test_what_has_no_effect_is_refused(make_config):
    config = make_config(**{"objective.mask": True})
    with pytest.raises(UserError, match="none of the 12 training pictures has a mask"):
        doctor.examine(config, joined.read(config))
    with pytest.raises(UserError, match=r"no effect without objective\.mask=true"):
        ObjectiveConfig(unmasked_weight=0.1)
