"""The published architectures whose pipelines are exchanged as one file, and the settings that the file lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CROSS, _PLAIN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP_CROSS, _UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_CLIP_L = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_CLIP_H = _CLIP_L | {  # OpenCLIP's ViT-H without its last layer
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
_CLIP_G = _CLIP_L | {  # OpenCLIP's ViT-bigG
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "down_block_types": [_CROSS, _CROSS, _CROSS, _PLAIN],
    "up_block_types": [_UP, _UP_CROSS, _UP_CROSS, _UP_CROSS],
    "block_out_channels": [320, 640, 1280, 1280],
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.18215,
}


@dataclass(frozen=True, eq=False)
class Family:
    """Pipelines of one architecture.

    Attributes:
        name: as people call them. architecture: as the header of such a file calls them (modelspec).
        module: that loads them, of ``finetune.models``.
        pipeline: diffusers' class.
        unet: settings of the U-Net; those that are not here are diffusers' defaults.
        vae: of the VAE. sides: in pixels, of what models were trained on, by what they predict.
        scheduler: class and settings.
        texts: settings of each text encoder, by the part's name. pads: what fills up their tokens.
        own: settings of the pipeline itself.
    """

    name: str
    architecture: str
    module: str
    pipeline: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    sides: dict[str, int]
    scheduler: tuple[str, dict[str, Any]]
    texts: dict[str, dict[str, Any]]
    pads: tuple[str, ...]
    own: dict[str, Any]

    def is_of(self, unet: Mapping[str, Any]) -> bool:
        """Whether a U-Net with these settings computes what this family's do, with the same weights."""
        others = (name for name in _UNSET if name not in self.unet)
        return not any(map(unet.get, others)) and all(
            _plain(unet.get(name)) == value for name, value in self.unet.items()
        )

    def side(self, predicts: str | None) -> int:
        """In pixels, of the pictures that a model which predicts this was trained on."""
        return self.sides.get(predicts or "", max(self.sides.values()))


_UNSET = (
    *("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "addition_embed_type"),
    *("encoder_hid_dim", "encoder_hid_dim_type", "dual_cross_attention", "only_cross_attention"),
)
"""Settings of a U-Net that give it further weights, such as a consistency model's."""
_END, _MARK = "<|endoftext|>", "!"
SD1 = Family(
    name="Stable Diffusion 1",
    architecture="stable-diffusion-v1",
    module="finetune.models.sd",
    pipeline="StableDiffusionPipeline",
    unet=_UNET | {"cross_attention_dim": 768, "attention_head_dim": 8},
    vae=_VAE,
    sides={"epsilon": 512},
    scheduler=(
        "PNDMScheduler",
        _SCHEDULER | {"skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False},
    ),
    texts={"text_encoder": _CLIP_L},
    pads=(_END,),
    own={"safety_checker": [None, None], "feature_extractor": [None, None]},
)
SD2 = Family(
    name="Stable Diffusion 2",
    architecture="stable-diffusion-v2",
    module="finetune.models.sd",
    pipeline="StableDiffusionPipeline",
    unet=_UNET
    | {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    vae=_VAE,
    sides={"epsilon": 512, "v_prediction": 768},
    scheduler=("DDIMScheduler", _SCHEDULER | {"set_alpha_to_one": False, "clip_sample": False}),
    texts={"text_encoder": _CLIP_H},
    pads=(_MARK,),
    own={"safety_checker": [None, None], "feature_extractor": [None, None]},
)
SDXL = Family(
    name="SDXL",
    architecture="stable-diffusion-xl-v1-base",
    module="finetune.models.sdxl",
    pipeline="StableDiffusionXLPipeline",
    unet=_UNET
    | {
        "down_block_types": [_PLAIN, _CROSS, _CROSS],
        "up_block_types": [_UP_CROSS, _UP_CROSS, _UP],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=_VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    sides={"epsilon": 1024},
    scheduler=("EulerDiscreteScheduler", _SCHEDULER | {"timestep_spacing": "leading"}),
    texts={"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
    pads=(_END, _MARK),
    own={"force_zeros_for_empty_prompt": True},
)
FAMILIES = (SD1, SD2, SDXL)


def family_of(unet: Mapping[str, Any]) -> Family | None:
    """The family of a U-Net, by its settings; None where it is of none."""
    return next((family for family in FAMILIES if family.is_of(unet)), None)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
