"""Features of pictures: encoded once, by a VAE or a network from a file, and refused before work starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.run.schema import UserError
from evaluate.measure.features import Features, of_timm, of_vae, refuse_absent, unit
from evaluate.measure_config import DistributionConfig

MODEL = "test_vit"


def picture(seed: int, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def test_every_picture_is_encoded_once(tmp_path):
    seen: list[int] = []

    def encode(pictures: list[Image.Image]) -> np.ndarray:
        seen.append(len(pictures))
        return np.array([[np.asarray(p).mean(), 1.0] for p in pictures])

    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    features = Features(encode)
    first = features.of_files(paths[:18])
    np.testing.assert_array_equal(features.of_files(paths[::-1])[::-1][:18], first)
    assert seen == [16, 2, 2]
    np.testing.assert_allclose(first[3], [np.asarray(picture(3)).mean(), 1.0])


def test_unit_vectors():
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_latents_are_pooled():
    import torch

    def encode(pixels):
        assert pixels.min() >= -1
        assert pixels.max() <= 1
        return pixels  # stand in for latents of 3 channels

    found = of_vae(SimpleNamespace(encode_images=encode)).encode([picture(0), picture(1)])  # type: ignore[arg-type]
    pixels = np.asarray(picture(1)).astype(float) / 127.5 - 1
    cells = pixels.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(found[1], cells.ravel(), atol=1e-6)
    assert torch.is_grad_enabled()


@pytest.fixture
def weights(tmp_path) -> Path:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network: Any = timm.create_model(MODEL, pretrained=False)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def config(weights: Path | str, model: str = MODEL) -> DistributionConfig:
    return DistributionConfig("timm", model, str(weights))


def test_a_network_of_timm_has_the_weights_of_the_file(weights):
    import timm
    import torch
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_model_data_config

    refuse_absent(config(weights))
    found = of_timm(config(weights), torch.device("cpu")).encode([picture(0), picture(1)])
    network: Any = timm.create_model(MODEL, pretrained=False)
    network.load_state_dict(load_file(weights))
    transform: Any = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.no_grad():
        hidden = network.eval().forward_features(transform(picture(1))[None])
        np.testing.assert_allclose(
            found[1], network.forward_head(hidden, pre_logits=True)[0], atol=1e-5
        )
    assert not np.allclose(found[0], found[1])


def test_what_cannot_be_loaded_is_refused_before_anything_is_measured(weights, tmp_path):
    import torch
    from safetensors.torch import save_file

    refuse_absent(DistributionConfig())
    with pytest.raises(
        FileNotFoundError, match=r"distribution\.timm_weights=.*no such file. Download"
    ):
        refuse_absent(config(tmp_path / "nowhere.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="not a safetensors file"):
        refuse_absent(config(tmp_path / "bad.safetensors"))
    with pytest.raises(
        UserError, match=r"timm_model=test_vi: timm has no such model; it has: .*test_vit"
    ):
        refuse_absent(config(weights, "test_vi"))
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not hold"):
        of_timm(config(tmp_path / "other.safetensors"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"features": "inception"}, r"distribution\.features=inception"),
        ({"features": "timm", "timm_model": "x"}, r"distribution\.timm_weights=null"),
        ({"features": "timm", "timm_weights": "x"}, r"distribution\.timm_model=null"),
        ({"timm_weights": "x"}, r"distribution\.timm_weights=x"),
        ({"features": "vae", "timm_model": "x"}, r"distribution\.timm_model=x"),
        ({"captions": -1}, r"distribution\.captions=-1"),
        ({"seeds": 1}, r"distribution\.seeds=1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, key):
    with pytest.raises(UserError, match=key):
        DistributionConfig(**settings)
