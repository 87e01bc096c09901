"""The starter VAE's metrics and loss, compared with closed forms."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from workflows.starter import vae as starter_vae
from workflows.starter.emoji_sets import Pictures


def test_psnr_of_a_known_error() -> None:
    images = torch.zeros(2, 3, 4, 4)
    decoded = torch.stack([images[0] + 0.2, images[1] + 0.02])
    # Range 2, so 10 log10(4 / error²): 20 dB at 0.2 and 40 dB at 0.02.
    assert starter_vae.psnr_db(decoded, images).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)


def test_psnr_clamps_values_out_of_range() -> None:
    white = torch.ones(1, 3, 4, 4)
    assert starter_vae.psnr_db(white + 1, white).item() == float("inf")


def test_a_constant_error_has_no_edges() -> None:
    images = torch.zeros(1, 3, 4, 4)
    expected = 0.5 + starter_vae.SQUARE_WEIGHT * 0.25
    assert starter_vae.reconstruction_loss(images + 0.5, images).item() == pytest.approx(expected)
    ramp = images + torch.tensor([0.0, 1.0, 0.0, 1.0])
    expected = 0.5 + starter_vae.EDGE_WEIGHT * 1.0 + starter_vae.SQUARE_WEIGHT * 0.5
    assert starter_vae.reconstruction_loss(ramp, images).item() == pytest.approx(expected)


@torch.inference_mode()
def test_the_shape_of_the_latents() -> None:
    vae = starter_vae.build_vae().eval()
    code = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean  # type: ignore[operator]
    factor = 2 ** (len(starter_vae.CONFIG["block_out_channels"]) - 1)
    assert code.shape == (1, starter_vae.LATENT_CHANNELS, 64 // factor, 64 // factor)
    assert vae.decode(code).sample.shape == (1, 3, 64, 64)  # type: ignore[operator]


class Stub(torch.nn.Module):
    """Encodes to a fixed distribution; decodes to its input plus a constant error."""

    def __init__(self, code: Normal, error: float) -> None:
        super().__init__()
        self.code, self.error = code, error

    def encode(self, images: torch.Tensor) -> SimpleNamespace:
        self.given = images
        mean, std = self.code.mean, self.code.stddev
        known = SimpleNamespace(mean=mean, std=std, var=std.square(), logvar=2 * std.log())
        return SimpleNamespace(latent_dist=known)

    def decode(self, code: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.given + self.error)


def test_the_loss_is_reconstruction_plus_divergence(
    noise_with_names: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter_vae, "KL_WEIGHT", 0.5)
    monkeypatch.setattr(starter_vae, "RECIPE", replace(starter_vae.RECIPE, batch_size=2))
    task = starter_vae.VaeTask(noise_with_names, noise_with_names, torch.device("cpu"))
    code = Normal(torch.tensor([0.5, -2.0]), torch.tensor([0.3, 1.5]))
    task.model = Stub(code, 0.1)
    loss = task.loss(torch.Generator().manual_seed(0))
    assert task.model.given.min() == -1
    assert task.model.given.max() == 1
    pull = kl_divergence(code, Normal(torch.zeros(2), torch.ones(2))).mean()
    expected = 0.1 + starter_vae.SQUARE_WEIGHT * 0.01 + 0.5 * pull
    torch.testing.assert_close(loss, expected)


def test_metrics_of_a_known_error_and_standard_deviation() -> None:
    code = Normal(torch.tensor([[3.0, -3.0]]), torch.ones(1, 2))
    metrics = starter_vae.vae_metrics(Stub(code, 0.2), torch.zeros(5, 3, 8, 8))
    assert metrics["psnr_openmoji"] == pytest.approx(20.0, abs=1e-3)
    assert metrics["latent_std"] == pytest.approx(18**0.5)
