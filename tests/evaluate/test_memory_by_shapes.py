"""Stable Diffusion 1.5 at 512 px is judged within 12 GB: bytes counted from shapes, without any weights.

Parameters are exact. Activations are an upper bound: every operation of a forward pass runs on torch's meta
device, which has shapes and no data, and after each the bytes of all tensors that are still referred to are
summed; attention is counted as the plain product with its whole matrix, which fused kernels do not make. What
kernels need while they run is not counted, so that 1 GB is left for it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from finetune.at_once import losses_at_once, pictures_at_once
from finetune.cache.encoders import pictures_at_once as encoded_at_once
from finetune.models.original.families import SDXL

GB = 10**9
SIDE = 512
LATENT = (4, SIDE // 8, SIDE // 8)


class Live(TorchDispatchMode):
    """The most bytes of results of operations that were alive at the same time.

    Results that are views of the weights of ``modules`` are left out.
    """

    def __init__(self, *modules: torch.nn.Module) -> None:
        super().__init__()
        self.peak = 0
        weights = (weight for module in modules for weight in module.parameters())
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata in self._weights:
                    continue
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def live(call, *modules: torch.nn.Module) -> int:
    with torch.no_grad(), Live(*modules) as counted:
        call()
    return counted.peak


@pytest.fixture(scope="module")
def parts():
    vae: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    with torch.device("meta"):
        return SimpleNamespace(
            unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval(),
            vae=AutoencoderKL(**vae).eval(),
            text=CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768,
                    intermediate_size=3072,
                    num_attention_heads=12,
                    num_hidden_layers=12,
                )
            ).eval(),
            clip=CLIPModel(CLIPConfig()).eval(),  # ViT-B/32
        )


def numbers(module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def unet_bytes(parts, batch: int) -> int:
    noisy = torch.empty(batch, *LATENT, device="meta")
    hidden = torch.empty(batch, 77, 768, device="meta")
    t = torch.empty(batch, dtype=torch.int64, device="meta")
    return live(lambda: parts.unet(noisy, t, encoder_hidden_states=hidden).sample)


def test_live_bytes_of_a_chain_by_hand():
    def chain():
        x = torch.empty(1000, device="meta")  # 4 kB
        y = x * 2
        del x
        z = y + 1
        return z.view(10, 100).sum()

    assert live(chain) == 8004  # y, z and their sum


def test_sd15_is_judged_within_12_gb(parts):
    assert numbers(parts.unet) == 859_520_964
    assert numbers(parts.vae) == 83_653_863
    assert numbers(parts.text) == 123_060_480
    assert numbers(parts.clip) == 151_277_313
    weights = 4 * sum(numbers(module) for module in vars(parts).values())
    assert weights == 4_870_050_480

    drawn, encoded = pictures_at_once(SIDE), encoded_at_once(SIDE)
    latents = torch.empty(drawn, *LATENT, device="meta")
    pixels = torch.empty(encoded, 3, SIDE, SIDE, device="meta")
    peaks = {
        "losses": unet_bytes(parts, losses_at_once(SIDE)),
        "drawing": unet_bytes(parts, 2 * drawn),  # with the caption and without
        "decoding": live(lambda: parts.vae.decode(latents).sample),
        "encoding": live(lambda: parts.vae.encode(pixels).latent_dist.mean),
    }
    needed = weights + max(peaks.values())
    assert needed <= 11 * GB, peaks
    assert (
        needed + 4 * numbers(parts.unet) > 12 * GB
    )  # a copy of the U-Net for each row did not fit
    assert weights + unet_bytes(parts, losses_at_once(128)) > 12 * GB


def test_sdxl_is_judged_within_18_gb(parts):
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(SDXL.unet).eval()
        vae = AutoencoderKL.from_config(SDXL.vae).eval()
        second = CLIPTextModelWithProjection(CLIPTextConfig(**SDXL.texts["text_encoder_2"])).eval()
    weights = 4 * sum(numbers(each) for each in (unet, vae, parts.text, second, parts.clip))
    assert weights == 14_480_460_720
    assert losses_at_once(1024) == pictures_at_once(1024) == encoded_at_once(1024) == 1
    noisy, hidden, pooled, sizes, pixels = (
        torch.empty(2, *shape, device="meta")
        for shape in ((4, 128, 128), (77, 2048), (1280,), (6,), (3, 1024, 1024))
    )
    t = torch.empty(2, dtype=torch.int64, device="meta")
    added = {"text_embeds": pooled, "time_ids": sizes}
    peaks = {
        "drawing": live(lambda: unet(noisy, t, hidden, added_cond_kwargs=added).sample, unet),
        "decoding": live(lambda: vae.decode(noisy[:1]).sample, vae),
        "encoding": live(lambda: vae.encode(pixels[:1]).latent_dist.mean, vae),
    }
    assert 3.0 * GB < max(peaks.values()) < 3.3 * GB, peaks
    assert weights + max(peaks.values()) < 18 * GB
