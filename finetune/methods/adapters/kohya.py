"""The file that ComfyUI, AUTOMATIC1111 and their kin load: an adapter in kohya's layout, beside diffusers'.

A weight's name is ``lora_unet_`` (of a pipeline's one text encoder ``lora_te_``, of two ``lora_te1_`` and ``lora_te2_``),
the name of diffusers' module with ``_`` for every dot, and a part that says the kind:
``lora_down.weight``, ``lora_up.weight`` and, of a DoRA, ``dora_scale``; ``lokr_w1`` and so on; ``hada_w1_a`` and so on. Each
module has its own ``alpha``; its scale is alpha / rank. kohya's trainers name SDXL's modules after the original blocks, of
which readers accept diffusers' names as well, as of Stable Diffusion 1 and 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.methods.interface import UNET, text_name

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

PREFIX = "lora_unet_"
_TAKEN = ("pytorch_lora_weights", "adapter_model")  # stems of other files in an export
_RENAMED = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
_PREDICTIONS = {"v_prediction": "v"}  # as the specification names them; others as diffusers does


def path(folder: Path, name: str) -> Path:
    """Where the file of a model called ``name`` is in an export: people copy it into another program's folder."""
    taken = name.endswith(_TAKEN)
    return folder / f"{name}{'-kohya' if taken else ''}.safetensors"


def file_of(folder: Path) -> Path | None:
    """The file in this layout in an export; None in one of an earlier version, or of no adapter."""
    found = sorted(file for file in folder.glob("*.safetensors") if not file.stem.endswith(_TAKEN))
    return found[0] if len(found) == 1 else None


def write(
    file: Path,
    model: LatentDiffusion,
    config: ModelConfig,
    said: Mapping[str, str],
    title: str,
    encoders: Mapping[str, nn.Module] | None = None,
) -> None:
    """Write the adapters of ``model``; the same weights and title, the same bytes.

    Args:
        file: to write.
        model: prepared.
        config: of the base model.
        said: keys of the header that are the method's.
        title: of the model.
        encoders: those of its text encoders that have an adapter.
    """
    found = tensors(model.unet)
    prefixes = text_prefixes(list(model.text_encoders))
    for part, encoder in (encoders or {}).items():
        found |= tensors(encoder, prefixes[part])
    arrays = {name: tensor.cpu().float().numpy() for name, tensor in found.items()}
    header = {**_facts(model, config), **said, "modelspec.title": title}
    write_safetensors(file, arrays, header)


def text_prefixes(parts: Sequence[str]) -> dict[str, str]:
    """What the names of each text encoder's modules begin with.

    >>> text_prefixes(["text_encoder"]), text_prefixes(["text_encoder", "text_encoder_2"])
    ({'text_encoder': 'lora_te_'}, {'text_encoder': 'lora_te1_', 'text_encoder_2': 'lora_te2_'})
    """
    if len(parts) == 1:
        return {parts[0]: "lora_te_"}
    return {part: f"lora_te{number}_" for number, part in enumerate(parts, 1)}


def stems(networks: Mapping[str, nn.Module]) -> dict[str, Any]:
    """All modules with a weight of a pipeline's networks, by what their names begin with in this layout.

    Args:
        networks: ``unet``, and all text encoders of the pipeline in order.
    """
    prefixes = {UNET: PREFIX, **text_prefixes([part for part in networks if part != UNET])}
    return {
        stem(name, prefixes[part]): module
        for part, network in networks.items()
        for name, module in network.named_modules()
        if hasattr(module, "weight")
    }


def stem(module: str, prefix: str) -> str:
    """What the names of a module's weights begin with."""
    return prefix + (module if prefix == PREFIX else text_name(module)).replace(".", "_")


def tensors(unet: nn.Module, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The weights of an adapter, the U-Net's or a text encoder's, by this layout's names."""
    import torch
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {
        name: layer for name, layer in unet.named_modules() if isinstance(layer, BaseTunerLayer)
    }
    found: dict[str, dict[str, Tensor]] = {name: {} for name in layers}
    for name, weight in get_peft_model_state_dict(unet, save_embedding_layers=False).items():
        module = next(m for m in _above(name) if m in layers)
        found[module][name[len(module) + 1 :]] = weight.detach()
    written = {}
    for module, parts in found.items():
        layer = layers[module]
        rank, alpha = layer.r["default"], _alpha(layer)
        if "lokr_w1" in parts and "lokr_w2" in parts:
            # Without a low rank there is none to divide by: all readers take a scale of one.
            parts["lokr_w1"] = parts["lokr_w1"] * (alpha / rank)
            alpha = rank
        if "lora_magnitude_vector" in parts:  # one for each output, whatever the weight's shape
            ones = [1] * (layer.get_base_layer().weight.dim() - 1)
            parts["lora_magnitude_vector"] = parts["lora_magnitude_vector"].reshape(-1, *ones)
        parts["alpha"] = torch.tensor(float(alpha))
        start = stem(module, prefix)
        written |= {f"{start}.{_RENAMED.get(part, part)}": value for part, value in parts.items()}
    return written


def _above(name: str) -> list[str]:
    """
    >>> _above("a.b.c")
    ['a.b', 'a']
    """
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _alpha(layer: Any) -> float:
    """Of a layer of peft's LoRA, or of its LyCORIS kinds."""
    alphas = layer.lora_alpha if hasattr(layer, "lora_alpha") else layer.alpha
    return alphas["default"]


def _facts(model: LatentDiffusion, config: ModelConfig) -> dict[str, str]:
    """What readers ask for of the base model; no date and no picture, so that the bytes repeat."""
    predicts = model.schedule.prediction_type
    family, version = _family(model.unet.config, predicts)
    is_xl = "text_encoder_2" in model.text_encoders  # for which kohya's trainers ignore the setting
    asked = {"ss_clip_skip": str(config.clip_skip)} if config.clip_skip != 1 and not is_xl else {}
    if config.chunks > 1:
        asked["ss_max_token_length"] = str(config.caption_tokens)
    if model.zero_terminal_snr:
        asked["ss_zero_terminal_snr"] = "True"
    return asked | {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.resolution": f"{model.resolution}x{model.resolution}",
        "modelspec.prediction_type": _PREDICTIONS.get(predicts, predicts),
        "ss_sd_model_name": config.path.rstrip("/").rpartition("/")[2],
        "ss_base_model_version": version,
        "ss_v2": str(version.startswith("sd_v2")),
        "ss_resolution": f"({model.resolution}, {model.resolution})",
    }


def _family(unet: Mapping[str, Any], predicts: str) -> tuple[str, str]:
    """The base's architecture as the specification names it, and as kohya's trainers do."""
    sides, text = tuple(unet["block_out_channels"]), unet["cross_attention_dim"]
    v = "_v" if predicts == "v_prediction" else ""
    if sides == (320, 640, 1280) and text == 2048:
        return "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"
    if sides == (320, 640, 1280, 1280) and text == 1024:
        return f"stable-diffusion-v2-{'768-v' if v else '512'}", f"sd_v2{v}"
    if sides == (320, 640, 1280, 1280) and text == 768:
        return "stable-diffusion-v1", f"sd_v1{v}"
    return "latent-diffusion", "unknown"


# The file format


def write_safetensors(
    file: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, str]
) -> None:
    """Write fp32 arrays with a header, whose keys safetensors itself would write in any order.

    The hash of the weights is added to it: of all bytes behind the header, as readers compute it.
    """
    described: dict[str, Any] = {}
    blocks, place = [], 0
    for name in sorted(arrays):
        block = arrays[name].astype("<f4").tobytes()
        described[name] = {
            "dtype": "F32",
            "shape": list(arrays[name].shape),
            "data_offsets": [place, place + len(block)],
        }
        blocks.append(block)
        place += len(block)
    data = b"".join(blocks)
    digest = hashlib.sha256(data).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    metadata = dict(sorted({**header, **hashes}.items()))
    text = json.dumps({"__metadata__": metadata, **described}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
