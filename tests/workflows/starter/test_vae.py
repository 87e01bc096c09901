"""The starter VAE's figure and loss in closed form."""

import pytest
import torch

from workflows.starter import vae as starter_vae


def test_psnr_of_a_known_error() -> None:
    images = torch.zeros(2, 3, 4, 4)
    decoded = torch.stack([images[0] + 0.2, images[1] + 0.02])
    # Range 2, so 10 log10(4 / error²): 20 dB at 0.2 and 40 dB at 0.02.
    assert starter_vae.psnr_db(decoded, images).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)


def test_psnr_clamps_what_a_picture_cannot_show() -> None:
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
def test_the_shape_of_the_code() -> None:
    vae = starter_vae.build_vae().eval()
    code = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean  # type: ignore[operator]
    factor = 2 ** (len(starter_vae.CONFIG["block_out_channels"]) - 1)
    assert code.shape == (1, starter_vae.LATENT_CHANNELS, 64 // factor, 64 // factor)
    assert vae.decode(code).sample.shape == (1, 3, 64, 64)  # type: ignore[operator]
