"""The names and shapes that the original programs give to a pipeline's weights.

The layout is CompVis' latent-diffusion for U-Net and VAE, with Hugging Face's CLIP (Stable Diffusion 1) or OpenCLIP
(2), and Stability AI's generative-models for SDXL, which has both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Of the text encoders, by which the families differ.
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAST_LAYER = "transformer.resblocks.{}."


def unet_weights(
    weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """A U-Net's weights by their names in the file.

    Args:
        weights: by diffusers' names. config: the U-Net's.
    """
    each = config["layers_per_block"] + 1
    attends = ["CrossAttn" in kind for kind in config["up_block_types"]]
    for name, weight in weights.items():
        found = re.match(
            r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)", name
        )
        if found is None:
            start = next(old for old in _UNET_OUTSIDE if name.startswith(f"{old}."))
            new = _UNET_OUTSIDE[start]
        else:
            start, (side, block, kind, place) = found[0], found.groups()
            number = int(block) * each + int(place)
            if kind == "downsamplers":
                start, new = f"{start}.conv", f"input_blocks.{(int(block) + 1) * each}.0.op"
            elif kind == "upsamplers":
                last = int(block) * each + each - 1
                start, new = f"{start}.conv", f"output_blocks.{last}.{1 + attends[int(block)]}.conv"
            else:
                into = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
                new = f"{into}.{0 if kind == 'resnets' else 1}"
        rest = name[len(start) :]
        if "resnets" in start:
            rest = _renamed(rest, _UNET_RESNET)
        yield f"{UNET}{new}{rest}", weight


def vae_weights(
    weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """A VAE's weights by their names in the file; those of its attention are kernels of 1 × 1 there.

    Args:
        weights: by diffusers' names. config: the VAE's.
    """
    last = len(config["up_block_types"]) - 1
    for name, weight in weights.items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.(resnets|upsamplers\.0)",
            lambda m: f"up.{last - int(m[1])}.{'block' if m[2] == 'resnets' else 'upsample'}",
            new,
        )
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in new:
            start, rest = new.split("mid_block.attentions.0")
            new = f"{start}mid.attn_1{_renamed(rest, _VAE_ATTENTION)}"
            weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        yield VAE + new, weight


def clip_weights(weights: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Weights of Hugging Face's CLIP; the file has the positions' numbers, too."""
    for name, weight in weights.items():
        plain = name.removeprefix("text_model.")
        yield f"{prefix}text_model.{plain}", weight
        if plain == "embeddings.position_embedding.weight":
            yield f"{prefix}text_model.embeddings.position_ids", torch.arange(len(weight))[None]


def open_clip_weights(
    weights: Mapping[str, Tensor], prefix: str, *, lacks_last_layer: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Weights of CLIP by OpenCLIP's names, with those that OpenCLIP has and diffusion does not use.

    Args:
        weights: by Hugging Face's names. prefix: of the names in the file.
        lacks_last_layer: for Stable Diffusion 2, which reads the last layer but one; programs that build the whole
            encoder want a last one all the same, and get a copy of that.
    """
    plain = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    width = plain["embeddings.token_embedding.weight"].shape[1]
    layers = 1 + max(
        int(m[1]) for name in plain if (m := re.match(r"encoder\.layers\.(\d+)\.", name))
    )
    named = dict(_open_clip_names(plain))
    if lacks_last_layer:
        above, last = (_LAST_LAYER.format(number) for number in (layers - 1, layers))
        copies = {n.replace(above, last): w for n, w in named.items() if n.startswith(above)}
        named |= copies
    named.setdefault("text_projection", torch.eye(width))
    named["logit_scale"] = torch.tensor(math.log(100.0))
    for name, weight in named.items():
        yield prefix + name, weight


def _open_clip_names(plain: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in plain.items():
        if name == "text_projection.weight":
            yield "text_projection", weight.T.contiguous()
        elif found := re.fullmatch(
            r"(encoder\.layers\.\d+\.self_attn)\.([qkv])_proj\.(weight|bias)", name
        ):
            if found[2] == "q":  # the three of them are one
                parts = [plain[f"{found[1]}.{part}_proj.{found[3]}"] for part in "qkv"]
                layer = found[1].split(".")[2]
                yield f"transformer.resblocks.{layer}.attn.in_proj_{found[3]}", torch.cat(parts)
        else:
            yield _renamed(name, _OPEN_CLIP), weight


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Each of the old names that is whole parts of ``name``, between dots, replaced by the new one."""
    for old, new in names.items():
        name = re.sub(rf"(?<![^.]){re.escape(old)}(?![^.])", new, name)
    return name
