"""Exports that other programs load, each proven by loading it again and comparing one forward pass."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curate.run.files import naming, read_json, replace_folder, sha256_of, write_json
from finetune.checkpoint import Checkpoint, os_errors
from finetune.methods import Method
from finetune.models.config import ModelConfig
from finetune.models.interface import LatentDiffusion

SOURCE = "checkpoint.json"  # in an export: which checkpoint's weights these are
TOLERANCE = 1e-4  # of the largest output; the same fp32 weights differ by rounding only


class ExportMismatch(RuntimeError):
    """What was written does not compute what is in memory."""


def export(
    method: Method,
    config: ModelConfig,
    model: LatentDiffusion,
    folder: Path,
    source: Checkpoint | None = None,
) -> float:
    """Write the trained weights of ``model``'s U-Net to ``folder``; what is there stays until then.

    Args:
        method: the one that trained them; it decides the format.
        config: of the base model, into which the export may be loaded for the comparison.
        model: with the weights to export in place.
        folder: is replaced only after the comparison.
        source: the checkpoint that the weights are of, for :func:`holds`.

    Returns:
        The largest absolute difference between the U-Net's outputs in memory and after reloading.

    Raises:
        ExportMismatch: the difference is beyond rounding; ``folder`` is as it was.
        OSError: the disk is full or refuses; ``folder`` is as it was.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with naming(folder), os_errors():
            method.save(model, part)
            if source:
                write_json(part / SOURCE, _identity(source))
        difference = _compare(model, method.load(config, part).to(model.device))
        replace_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return difference


def holds(folder: Path, source: Checkpoint) -> bool:
    """Whether ``folder`` is a finished export of a checkpoint."""
    return (known := read_json(folder / SOURCE)) is not None and known == _identity(source)


def _identity(source: Checkpoint) -> dict[str, Any]:
    digest = sha256_of(source.weights_path())
    return {"step": source.step, "samples_seen": source.samples_seen, "weights_sha256": digest}


@torch.no_grad()
def _compare(model: LatentDiffusion, reloaded: nn.Module) -> float:
    """The largest difference between the predictions of ``model``'s U-Net and of ``reloaded``."""
    generator = torch.Generator().manual_seed(0)
    unet = model.unet.config
    size = unet["sample_size"] if isinstance(unet["sample_size"], int) else 8
    noisy = torch.randn((1, unet["in_channels"], size, size), generator=generator).to(model.device)
    timesteps = torch.tensor([500], device=model.device)
    conditioning = model.encode_captions(["a picture"])
    ours, theirs = (
        model.predict(network.eval(), noisy, timesteps, conditioning).float()
        for network in (model.unet, reloaded)
    )
    difference, largest = (ours - theirs).abs().max().item(), ours.abs().max().item()
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ExportMismatch(
            f"the export computes something else: outputs differ by {difference} of {largest}"
        )
    return difference
