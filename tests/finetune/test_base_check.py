"""The check of the base before training: the bar, which mistake it names, and that nothing is measured twice."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from curate.run import checksums
from curate.run.schema import UserError
from finetune import base_check, checks, evaluating
from finetune.base_check import FILE, LEAST_SIGNAL, compare, judge, of_nothing, reread
from finetune.conditioning import Conditioning
from finetune.curve import HeldoutCurve
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses
from finetune.models.config import ModelConfig
from finetune.objective import NoiseSchedule
from finetune.prediction_types import PREDICTION_TYPES
from tests.finetune.conftest import digests
from tests.finetune.test_damage import flip

GRID = HeldoutGrid(bins=10, draws=1)
MODEL = ModelConfig(path="my/base", resolution=16)
LOOK = "python -m curate.explain mine {keys}"


def schedule(kind: str) -> NoiseSchedule:
    """Stable Diffusion's."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = (1 - betas).cumprod(0)
    return NoiseSchedule(alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float(), kind)


def pictures(scale: float = 1.0, count: int = 12) -> HeldoutItems:
    """Latents of that root mean square; the model below is given them of 1 by its conditioning."""
    latents = torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    latents /= latents.square().mean().sqrt()
    keys = [f"k{number}" for number in range(count)]
    return HeldoutItems(keys, latents * scale, Conditioning({"clean": latents}), keys)


def model(predicts: str, told: str, prior: torch.Tensor | None = None):
    """One that knows the pictures of scale 1, or takes all for ``prior``, and predicts ``predicts``."""
    true, noise = schedule(predicts), SimpleNamespace(eval=lambda: None, train=lambda _: None)

    def predict(_, noisy, timesteps, conditioning):
        clean = conditioning["clean"] if prior is None else prior.expand_as(noisy)
        alpha, sigma = (table[timesteps, None, None, None] for table in (true.alphas, true.sigmas))
        return true.target(clean, (noisy - alpha * clean) / sigma, timesteps)

    noise.training = False
    return SimpleNamespace(
        schedule=schedule(told), device=torch.device("cpu"), predict=predict, unet=noise
    )


def check(base, items):
    found = compare(base.schedule, items, GRID, grid_losses(base, base.unet, items, GRID, 64))
    return found, reread(base, base.unet, items, 64, found) if found.worse else None


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_bar_is_the_mean_square_of_the_target(kind):
    latents = pictures(1.7, 64).latents
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    energies = latents.double().square().mean((1, 2, 3)).numpy()
    for timestep in (25, 500, 975):
        times = torch.full((64,), timestep)
        expected = schedule(kind).target(latents, noise, times).square().mean().item()
        found = of_nothing(schedule(kind), times[:1], energies)
        assert found.shape == (64, 1)
        assert found.mean() == pytest.approx(expected, rel=0.02)


def test_no_linear_prediction_is_worse_and_for_latents_of_energy_one_it_is_no_better_on_v():
    """Least squares on samples of scalars against the formulas of the module."""
    rng = np.random.default_rng(0)
    for energy in (0.3, 1.0, 3.0):
        clean, noise = rng.normal(0, energy**0.5, 200_000), rng.normal(size=200_000)
        for timestep in (100, 400, 700):
            alpha, sigma = (
                float(t[timestep]) for t in (schedule("epsilon").alphas, schedule("epsilon").sigmas)
            )
            noisy = alpha * clean + sigma * noise
            for kind, target, signal in (
                ("epsilon", noise, alpha),
                ("v_prediction", alpha * noise - sigma * clean, 1.0),
            ):
                residual = target - noisy * (noisy @ target) / (noisy @ noisy)
                formula = signal**2 * energy / (alpha**2 * energy + sigma**2)
                assert np.mean(residual**2) == pytest.approx(formula, rel=0.02)
                bar = of_nothing(schedule(kind), torch.tensor([timestep]), np.array([energy]))
                assert formula <= bar[0, 0] + 1e-6
                if energy == 1 and kind == "v_prediction":
                    assert formula == pytest.approx(bar[0, 0])


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_a_base_of_the_right_type_and_scale_passes(kind):
    found, _ = check(model(kind, kind), pictures())
    assert found.worse == []
    assert judge(found, None, "refuse", MODEL, LOOK).startswith("base    loss 0.00 to 0.00 times")
    counted = len(found.counted)
    assert counted == (10 if kind == "epsilon" else 7)


@pytest.mark.parametrize("typed", [None, "told"])
@pytest.mark.parametrize(
    ("predicts", "told"), [("v_prediction", "epsilon"), ("epsilon", "v_prediction")]
)
def test_the_wrong_type_is_refused_and_the_right_one_named(predicts, told, typed):
    found, reading = check(model(predicts, told), pictures())
    asked = replace(MODEL, prediction_type=typed and told)
    with pytest.raises(UserError, match=r"worse than nothing: at [1-9] of") as refused:
        judge(found, reading, "refuse", asked, LOOK)
    said = str(refused.value)
    assert (
        f"its U-Net predicts {predicts}, not {told}: type model.prediction_type={predicts}" in said
    )
    assert ("scheduler_config.json" in said) == (typed is None)
    assert "scaling_factor" not in said
    assert said.endswith("To train all the same, type doctor.base=warn")
    assert judge(found, reading, "warn", MODEL, LOOK).startswith("warning: the base predicts worse")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_latents_of_another_scale_are_refused_with_the_factor(kind):
    found, reading = check(model(kind, kind), pictures(5.5))
    with pytest.raises(UserError, match=r"about 0\.182 times what it is") as refused:
        judge(found, reading, "refuse", MODEL, LOOK)
    said = str(refused.value)
    assert "my/base/vae/config.json" in said
    assert "model.prediction_type" not in said


def test_both_mistakes_are_named():
    found, reading = check(model("v_prediction", "epsilon"), pictures(5.5))
    with pytest.raises(UserError, match=r"model\.prediction_type=v_prediction.*scaling_factor"):
        judge(found, reading, "refuse", MODEL, LOOK)


def test_where_nothing_explains_it_the_data_is_named():
    base = model("epsilon", "epsilon", prior=torch.full((1, 4, 8, 8), 6.0))
    found, reading = check(base, pictures())
    assert reading is None
    with pytest.raises(
        UserError, match="Neither another prediction type nor another scale"
    ) as said:
        judge(found, reading, "refuse", MODEL, LOOK)
    assert f"curate.explain mine {' '.join(found.suspects)}" in str(said.value)
    assert len(found.suspects) == 3


def test_what_the_base_expects_at_high_noise_is_not_held_against_it():
    """It takes all pictures for their negatives, which at least signal is four times the loss of nothing."""
    items = pictures()
    base = model("v_prediction", "v_prediction")
    alphas = base.schedule.alphas

    def predict(_, noisy, timesteps, conditioning):
        alpha, sigma = (t[timesteps, None, None, None] for t in (alphas, base.schedule.sigmas))
        clean = conditioning["clean"] * (1 - 2 * (alpha**2 < LEAST_SIGNAL))
        noise = (noisy - alpha * conditioning["clean"]) / sigma
        return alpha * noise - sigma * clean

    base.predict = predict
    found, _ = check(base, items)
    assert found.worse == []
    assert max(level.ratio.value for level in found.levels) > 3


def test_a_single_picture_which_has_no_interval_refuses_nothing():
    base = model("v_prediction", "epsilon")
    alone, _ = check(base, pictures(count=1))
    assert not alone.is_sound
    assert alone.worse == []


def test_an_unusual_scale_that_does_no_harm_is_said():
    items = pictures()
    small = replace(items, latents=items.latents * 0.2)
    base = model("epsilon", "epsilon")
    found = compare(base.schedule, small, GRID, np.full((12, 10, 1), 0.5, np.float32))
    said = judge(found, None, "refuse", MODEL, LOOK)
    assert said.startswith("warning: the latents' root mean square is 0.2, and")


def test_a_loss_that_is_no_number_is_refused_and_stored_as_null(tmp_path):
    base = model("epsilon", "epsilon")
    losses = np.full((12, 10, 1), 0.5, np.float32)
    losses[3, 2] = np.nan
    found = compare(base.schedule, pictures(), GRID, losses)
    with pytest.raises(UserError, match=r"at 1 of 10 noise levels its loss is not a number.*fp16"):
        judge(found, None, "refuse", MODEL, LOOK)
    found.save(tmp_path / FILE)
    stored = json.loads((tmp_path / FILE).read_bytes())
    assert stored["levels"][2]["loss"] is None
    assert stored["levels"][1]["ratio"]["value"] == 0.5


# In a training


def test_the_base_is_measured_once_and_the_training_is_the_same(
    make_config, run_training, capsys, monkeypatch
):
    counts = []
    measure = evaluating.measure

    def counting(run, items):
        counts.append(items.keys)
        return measure(run, items)

    for module in (evaluating, checks):
        monkeypatch.setattr(module, "measure", counting)
    run_training(unchecked := make_config("unchecked"))
    plain, counts[:] = list(counts), []
    run_training(config := make_config("checked", **{"doctor.base": "warn"}))
    assert sorted(counts) == sorted(plain)
    assert "base    loss" in (out := capsys.readouterr().out) or "worse than nothing" in out
    losses = [HeldoutCurve.load(each.folder / "heldout.npz").val for each in (unchecked, config)]
    assert np.array_equal(losses[0], losses[1])
    assert not (unchecked.folder / FILE).exists()
    assert (config.folder / FILE).exists()
    assert checksums.damaged(config.folder) == []


def test_a_refusal_leaves_no_training_behind(make_config, run_training, monkeypatch):
    worse = compare(schedule("epsilon"), pictures(), GRID, np.full((12, 10, 1), 1.5, np.float32))
    monkeypatch.setattr(base_check, "compare", lambda *_: worse)
    config = make_config(**{"doctor.base": "refuse"})
    with pytest.raises(UserError, match="worse than nothing"):
        run_training(config)
    assert not (config.folder / "config.yaml").exists()
    assert not (config.folder / "checkpoints").exists()
    assert not (config.folder / "heldout.npz").exists()
    run_training(make_config(**{"doctor.base": "warn"}))
    assert (config.folder / "checkpoints").exists()


def test_without_a_held_out_loss_training_pictures_are_measured(make_config, run_training, capsys):
    run_training(config := make_config(**{"doctor.base": "warn", "heldout.items": 0}))
    assert "on 12 pictures (12 groups)" in capsys.readouterr().out
    assert len(json.loads((config.folder / FILE).read_bytes())["levels"]) == 10


def test_a_damaged_file_is_made_again_and_never_refused(make_config, run_training, capsys):
    run_training(config := make_config(**{"doctor.base": "warn"}))
    before = digests(config)
    flip(config.folder / FILE)
    capsys.readouterr()
    run_training(make_config(**{"doctor.base": "refuse"}))
    assert f"{FILE} is damaged" in capsys.readouterr().out
    assert digests(config) == before
    assert checksums.damaged(config.folder) == []


# With the built-in base


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "scale", "said"),
    [
        ("v_prediction", 1.0, None),
        ("epsilon", 1.0, "type model.prediction_type=v_prediction"),
        ("v_prediction", 1 / 0.535, "scaling_factor"),
        ("v_prediction", 0.18215 / 0.535, "scaling_factor"),
    ],
)
def test_the_built_in_base_passes_and_its_two_mistakes_are_refused(emoji, told, scale, said):
    """Emoji of another style than the base's; the other scales are of scaling_factor 1 and Stable Diffusion's."""
    items, base = emoji
    base = replace(base, schedule=replace(base.schedule, prediction_type=told))
    found, reading = check(base, replace(items, latents=items.latents * scale))
    if said is None:
        assert judge(found, reading, "refuse", MODEL, LOOK).startswith("base    loss 0.")
        return
    with pytest.raises(UserError, match="worse than nothing") as refused:
        judge(found, reading, "refuse", MODEL, LOOK)
    assert said in str(refused.value)


@pytest.fixture(scope="module")
def emoji():
    from tests.finetune.test_caption_check import _emoji

    items, _, base = _emoji(base_check.PICTURES)
    return items, base
