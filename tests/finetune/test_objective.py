"""Closed forms of the noise schedule and its targets, and the sampler that should undo them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from finetune.conditioning import Conditioning
from finetune.objective import NoiseSchedule, denoising_loss
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
