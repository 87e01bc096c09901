"""Closed forms of the noise schedule and its targets, and the sampler that should undo them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr

from curate.run.schema import UserError
from finetune.conditioning import Conditioning
from finetune.objective import NoiseSchedule, denoising_loss, loss_weights
from finetune.prediction_types import PREDICTION_TYPES

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def schedule(prediction_type: str) -> NoiseSchedule:
    return NoiseSchedule.from_scheduler(DDPMScheduler(**BETAS, prediction_type=prediction_type))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(5, 4, 3, 3, generator=generator)
    noise = torch.randn(5, 4, 3, 3, generator=generator)
    return latents, noise, torch.tensor([0, 1, 500, 998, 999])


def alpha_bar(kind: str) -> torch.Tensor:
    """The closed form of a schedule of 1,000 steps, fp64."""
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17, its betas at most 0.999
        at = (torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008
        f = (at * torch.pi / 2).cos() ** 2
        betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        assert (betas == 0.999).sum() == 1  # so up to the last step it is f(t + 1) / f(0)
        torch.testing.assert_close((1 - betas).cumprod(0)[:-1], f[1:-1] / f[0])
    elif kind == "scaled_linear":  # squares of an even spacing of square roots
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    return (1 - betas).cumprod(0)


@pytest.mark.parametrize("kind", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_the_tables_are_the_closed_forms(kind):
    ours = NoiseSchedule.from_scheduler(DDPMScheduler(**BETAS | {"beta_schedule": kind}))
    expected = alpha_bar(kind)
    torch.testing.assert_close(ours.alphas.double(), expected.sqrt(), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.sigmas.double(), (1 - expected).sqrt(), atol=2e-6, rtol=1e-4)
    if kind == "scaled_linear":
        assert len(ours.sigmas.unique()) == 1000  # bf16 would leave 192


@pytest.mark.parametrize("kind", ["scaled_linear", "linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerDiscreteScheduler])
def test_zero_terminal_snr_is_diffusers_rescaling(scheduler, kind):
    """By both ways, from the plain schedule and from one that is rescaled already, of which Euler's keeps 2^-24."""
    made = {**BETAS, "beta_schedule": kind, "prediction_type": "v_prediction"}
    plain = NoiseSchedule.from_scheduler(scheduler(**made))
    theirs = (1 - rescale_zero_terminal_snr(scheduler(**made).betas)).cumprod(0)
    for again in (False, True):
        ours = NoiseSchedule.from_scheduler(scheduler(**made, rescale_betas_zero_snr=again), True)
        torch.testing.assert_close(ours.alphas.square(), theirs, atol=2e-6, rtol=0)
        torch.testing.assert_close(ours.sigmas.square(), 1 - theirs, atol=2e-6, rtol=0)
        assert (ours.alphas[-1], ours.sigmas[-1], ours.snr[-1]) == (0, 1, 0)
        torch.testing.assert_close(ours.alphas[0], plain.alphas[0], atol=1e-6, rtol=0)
    assert plain.alphas[-1] > 0


def test_adding_noise_agrees_with_diffusers(batch):
    latents, noise, timesteps = batch
    theirs = DDPMScheduler(**BETAS).add_noise(latents, noise, timesteps)
    torch.testing.assert_close(schedule("epsilon").add_noise(latents, noise, timesteps), theirs)


def test_v_target_agrees_with_diffusers_and_rotates_back(batch):
    latents, noise, timesteps = batch
    ours = schedule("v_prediction")
    v = ours.target(latents, noise, timesteps)
    torch.testing.assert_close(v, DDPMScheduler(**BETAS).get_velocity(latents, noise, timesteps))
    # (x_t, v) is (x_0, eps) rotated: x_0 = alpha x_t - sigma v, eps = sigma x_t + alpha v
    noisy = ours.add_noise(latents, noise, timesteps)
    alpha = ours.alphas[timesteps].reshape(-1, 1, 1, 1)
    sigma = ours.sigmas[timesteps].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(alpha * noisy - sigma * v, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sigma * noisy + alpha * v, noise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_loss_is_the_mean_square_against_the_target(batch, prediction_type):
    latents, noise, timesteps = batch
    ours = schedule(prediction_type)

    def constant(noisy, t, conditioning):
        return torch.full_like(noisy, 0.25)

    conditioning = Conditioning({"hidden": torch.zeros(5, 2, 2)})
    loss = denoising_loss(constant, ours, latents, noise, timesteps, conditioning)
    for i in range(5):
        t = int(timesteps[i])
        alpha, sigma = float(ours.alphas[t]), float(ours.sigmas[t])
        target = {
            "epsilon": noise[i],
            "v_prediction": alpha * noise[i] - sigma * latents[i],
            "sample": latents[i],
        }[prediction_type]
        expected = sum((0.25 - x) ** 2 for x in target.flatten().tolist()) / target.numel()
        assert loss[i].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_sampler_with_a_perfect_denoiser_recovers_the_picture(prediction_type):
    """What the loss calls perfect is what diffusers' DDIM sampler needs to return the clean latent."""
    ours = schedule(prediction_type)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 3, 3, generator=generator)
    sampler = DDIMScheduler(
        **BETAS, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=True
    )
    sampler.set_timesteps(20)
    x = torch.randn(1, 4, 3, 3, generator=generator)

    def perfect(noisy, t, encoder_hidden_states=None):
        alpha, sigma = ours.alphas[t].item(), ours.sigmas[t].item()
        noise = (noisy - alpha * clean) / sigma
        return SimpleNamespace(sample=ours.target(clean, noise, t.reshape(1)))

    for t in sampler.timesteps:
        x = sampler.step(perfect(x, t).sample, t, x).prev_sample
    torch.testing.assert_close(x, clean, atol=1e-4, rtol=1e-4)


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(ValueError, match=r"model\.prediction_type='flow'.*epsilon, v_prediction"):
        replace(schedule("sample"), prediction_type="flow")


def error_of_clean(prediction_type: str, name: str, gamma: float) -> torch.Tensor:
    """The weight that a weighting gives an error of the clean latents, by measuring what an error costs."""
    ours = schedule(prediction_type)
    weights = loss_weights(ours, name, gamma)
    assert weights is not None
    steps = torch.arange(1000)
    wide = torch.zeros(1000, 1, 1, 1, dtype=torch.float64)
    off = wide + 0.01
    alpha, sigma = (table.double().reshape(-1, 1, 1, 1) for table in (ours.alphas, ours.sigmas))
    # Someone who takes the clean latents for 0.01 more than they are takes the noise for as much less.
    target = ours.target(wide, wide, steps).double()
    believed = ours.target(off, -alpha * off / sigma, steps).double()
    cost = (believed - target).square().flatten() * weights.double()
    return cost / 0.01**2


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_weighting_means_the_same_for_every_target(prediction_type):
    """Weights times the square error of the target are the published weight times that of the clean latents."""
    snr = compute_snr(DDPMScheduler(**BETAS), torch.arange(1000)).double()
    expected = {
        "min_snr": snr.clamp(max=5),
        "soft_min_snr": 1 / (1 / snr + 1 / 5),
        "debiased": snr**0.5,
    }
    for name, value in expected.items():
        found = error_of_clean(prediction_type, name, 5.0)
        torch.testing.assert_close(found, value, rtol=1e-3, atol=0)


def test_min_snr_is_what_diffusers_scripts_multiply_by():
    """As train_text_to_image.py weighs: min(snr, gamma) / snr, and / (snr + 1) for v."""
    snr = compute_snr(DDPMScheduler(**BETAS), torch.arange(1000))
    capped = torch.minimum(snr, torch.full_like(snr, 5.0))
    ours = {
        kind: loss_weights(schedule(kind), "min_snr", 5.0) for kind in ("epsilon", "v_prediction")
    }
    torch.testing.assert_close(ours["epsilon"], capped / snr, rtol=1e-3, atol=0)
    torch.testing.assert_close(ours["v_prediction"], capped / (snr + 1), rtol=1e-3, atol=0)


def test_v_with_debiasing_stays_finite_without_signal():
    """At a signal-to-noise ratio of 0 nothing is known of the clean latents, and v is minus these."""
    tables = torch.tensor([0.8, 0.0]), torch.tensor([0.6, 1.0])
    ours = NoiseSchedule(*tables, "v_prediction")
    for name in ("min_snr", "soft_min_snr", "debiased"):
        weights = loss_weights(ours, name, 5.0)
        assert weights is not None
        assert weights[1] == 0
        assert weights[0] > 0


def test_no_weighting_has_no_weights():
    assert loss_weights(schedule("epsilon"), "none", 5.0) is None


def test_perturbed_input_has_the_target_of_the_noise_alone(batch):
    latents, noise, timesteps = batch
    ours, added = schedule("epsilon"), noise + 0.5
    seen = []

    def zero(noisy, t, conditioning):
        seen.append(noisy)
        return torch.zeros_like(noisy)

    nothing = Conditioning({"hidden": torch.zeros(5, 2, 2)})
    loss = denoising_loss(zero, ours, latents, noise, timesteps, nothing, added)
    torch.testing.assert_close(loss, noise.square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(seen[0], ours.add_noise(latents, added, timesteps))


def test_a_weighting_without_a_value_is_refused():
    ours = NoiseSchedule(torch.tensor([0.8, 0.0]), torch.tensor([0.6, 1.0]), "epsilon")
    with pytest.raises(
        UserError, match=r"objective\.weighting=min_snr divides.*type objective\.weighting=none"
    ):
        loss_weights(ours, "min_snr", 5.0)
