"""Write a pipeline as one file in the original layout, proven by reading every weight of it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetune.models.original import layout
from finetune.models.original.families import SD1, SD2, SDXL, Family
from finetune.models.original.header import V_PREDICTION, ZERO_SNR

_TYPES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
_SAID = {"epsilon": "epsilon", "v_prediction": "v"}  # as the file's header calls them
PREDICTIONS = tuple(_SAID)  # what programs that read such files can sample with


def write(
    path: Path,
    pipeline: Any,
    family: Family,
    resolution: int,
    dtype: torch.dtype = torch.float16,
    trigger: str = "",
) -> None:
    """Write it; the same weights, the same bytes.

    Args:
        path: of the file; not there yet.
        pipeline: of diffusers, whose scheduler says what its U-Net predicts.
        family: of the pipeline. resolution: in pixels, for the header.
        dtype: of the weights in the file, fp16 or fp32.
        trigger: the word in front of all captions, for the header; "" for none.

    Raises:
        ValueError: a weight is beyond the range of ``dtype``.
    """
    noise = pipeline.scheduler.config
    predicts, zero_snr = noise["prediction_type"], bool(noise.get("rescale_betas_zero_snr"))
    tensors = original(pipeline, family)
    if family is SDXL and predicts == "v_prediction":
        tensors |= {V_PREDICTION: torch.zeros(0)} | ({ZERO_SNR: torch.zeros(0)} if zero_snr else {})
    said = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _architecture(family, predicts),
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.prediction_type": _SAID[predicts],
        "modelspec.resolution": f"{resolution}x{resolution}",
    }
    if trigger:
        said["modelspec.trigger_phrase"] = trigger
    _write(path, {name: _cast(name, tensor, dtype) for name, tensor in tensors.items()}, said)


def original(pipeline: Any, family: Family) -> dict[str, Tensor]:
    """All weights of a pipeline by their names in the file, in their own precision."""
    unet, vae = pipeline.unet, pipeline.vae
    found = dict(layout.unet_weights(unet.state_dict(), unet.config))
    found |= layout.vae_weights(vae.state_dict(), vae.config)
    first = pipeline.text_encoder.state_dict()
    if family is SD1:
        found |= layout.clip_weights(first, layout.CLIP)
    elif family is SD2:
        found |= layout.open_clip_weights(first, layout.OPEN_CLIP, lacks_last_layer=True)
    else:
        second = pipeline.text_encoder_2.state_dict()
        found |= layout.clip_weights(first, layout.XL_CLIP)
        found |= layout.open_clip_weights(second, layout.XL_OPEN_CLIP)
    return found


def differing(
    path: Path, pipeline: Any, settings: Path, dtype: torch.dtype = torch.float16
) -> list[str]:
    """The weights that diffusers reads otherwise from a file than ``pipeline`` has them; none is right.

    Args:
        path: of the file. pipeline: that was written to it.
        settings: a folder with those of the pipeline. dtype: of the file.
    """
    read = type(pipeline).from_single_file(str(path), config=str(settings), local_files_only=True)
    found = []
    for part, module in pipeline.components.items():
        if not isinstance(module, nn.Module):
            continue
        again: Mapping[str, Tensor] = getattr(read, part).state_dict()
        for name, weight in module.state_dict().items():
            theirs = again.get(name)
            if theirs is None or theirs.is_meta or not torch.equal(theirs, weight.cpu().to(dtype)):
                found.append(f"{part}.{name}")
    return found


def _architecture(family: Family, predicts: str) -> str:
    if family is not SD2:
        return family.architecture
    return f"{family.architecture}-{'768-v' if predicts == 'v_prediction' else '512'}"


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.detach().to(dtype)
    if not torch.equal(cast.isfinite().all(), tensor.isfinite().all()):
        raise ValueError(f"{name} has values beyond {dtype}")
    return cast


def _write(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> None:
    """A safetensors file; safetensors itself would write the keys of its header in any order."""
    described: dict[str, Any] = {"__metadata__": dict(sorted(said.items()))}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            stream.write(tensor.cpu().contiguous().numpy().tobytes())
