"""What the header of a single file says: which pipeline it is, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curate.run.schema import UserError
from finetune.models.original.families import SD1, SD2, SDXL, Family

# As they are in the file; finetune.models.original.layout, which writes them, imports torch.
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_FIRST_CONVOLUTION = f"{_UNET}input_blocks.0.0.weight"
_TEXTS = {
    "conditioner.embedders.1.model.": SDXL,
    "cond_stage_model.model.": SD2,
    "cond_stage_model.transformer.text_model.": SD1,
}
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"  # keys by which files of SDXL say what they predict
_CONTINUOUS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
_PREDICTIONS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}


@dataclass(frozen=True, slots=True)
class Header:
    """Of a pipeline in one file.

    Attributes:
        family: what it is.
        prediction_type: None where the file does not say it and its family has several.
        zero_snr: whether the last noise level is without signal.
    """

    family: Family
    prediction_type: str | None
    zero_snr: bool


def refuse_adapter(names: Iterable[str], option: str) -> None:
    """Refuse a file whose weights are those of a LoRA.

    Raises:
        UserError: they are.
    """
    if any("lora_" in name for name in names):
        raise UserError(
            f"{option} is a LoRA; type the pipeline that it belongs to as model.path=..."
        )


def read_header(path: Path, option: str) -> Header:
    """Say which pipeline a file holds.

    Args:
        path: of a ``.safetensors`` file. option: that named it, as it is typed.

    Raises:
        UserError: it is damaged, holds less than a pipeline, or one that is not supported.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names, said = set(file.keys()), file.metadata() or {}
            first = _FIRST_CONVOLUTION if _FIRST_CONVOLUTION in names else None
            channels = file.get_slice(first).get_shape()[1] if first else None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{option} cannot be read: {error}; copy the file again") from error
    refuse_adapter(names, option)
    found = next(
        (f for start, f in _TEXTS.items() if any(n.startswith(start) for n in names)), None
    )
    lacks = [
        part
        for part, there in {
            "U-Net": channels is not None,
            "VAE": any(name.startswith(_VAE) for name in names),
            "text encoder": found is not None,
        }.items()
        if not there
    ]
    if lacks or found is None:
        raise UserError(
            f"{option} is no whole pipeline of Stable Diffusion 1, 2 or XL in the original layout: it has no "
            f"{' and no '.join(lacks)} under the names of that layout. Type a file with all parts, or a folder in "
            "diffusers' layout"
        )
    if channels != found.unet["in_channels"]:
        raise UserError(
            f"{option} has a U-Net of {channels} input channels: inpainting, depth and instruction models are not "
            "supported; give a plain text-to-image pipeline"
        )
    if odd := [name for name in _CONTINUOUS if name in names]:
        raise UserError(
            f"{option} was trained on continuous noise levels ({odd[0]}), which is not supported; give a pipeline "
            "of timesteps"
        )
    predicts = _PREDICTIONS.get(said.get("modelspec.prediction_type", "").lower())
    if V_PREDICTION in names:
        predicts = "v_prediction"
    if predicts is None and found is not SD2:
        predicts = "epsilon"
    return Header(found, predicts, ZERO_SNR in names)
