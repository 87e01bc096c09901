"""What a training will take: memory, disk and time, before most of it is spent."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curate.run.units import duration, size
from finetune import peak
from finetune.config import TrainConfig
from finetune.data import Batch
from finetune.due import due
from finetune.models.denoiser import Denoiser, takes_captions
from finetune.models.interface import LatentDiffusion
from finetune.models.parts import IDS
from finetune.optimizers import state_bytes

_FP32 = 4


def disk(
    config: TrainConfig,
    model: LatentDiffusion,
    pictures: int,
    captions: int,
    beside: Mapping[str, int] = {},
) -> str:
    """What cache, checkpoints and export will hold at most, and what is free.

    Args:
        config: of the training.
        model: prepared.
        pictures, captions: that will be encoded; each view of a picture counts, by its space.
        beside: bytes of what else is kept of pictures, by its name.
    """
    latent = model.unet.config["in_channels"] * (model.resolution // model.pixels_per_latent) ** 2
    text = model.encode_captions([""]).half().tensors.values()
    hidden = sum(tensor.numel() * tensor.element_size() for tensor in text)
    cached = pictures * latent * _FP32 + captions * hidden + sum(beside.values())
    kept = ", ".join(["latents", *beside])
    trained = config.method.trained(model).values()
    weights = _numbers(trained) * _FP32
    whole = weights * (1 + bool(config.ema.decay)) + _held(config.optim.name, trained)
    count = -(-config.steps * config.optim.batch_size // config.checkpoint.every)
    keep = config.kept_states
    resumable = min(count, keep + 1) if keep else count  # one more until it is stored
    export = config.method.export_bytes(model)
    total = cached + resumable * whole + (count - resumable) * weights + export
    free = shutil.disk_usage(config.run.root).free
    checkpoints = f"{count:,} checkpoint{'s' if count > 1 else ''} of {size(whole)}"
    if resumable < count:
        checkpoints += f", {count - resumable:,} of them cut to {size(weights)}"
    less = (
        "type checkpoint.keep=2" if keep is None or keep > 2 else "type a larger checkpoint.every"
    )
    less += ", or take another disk with run.root=FOLDER"
    return (
        f"at most {size(total)}: {kept} and captions {size(cached)} less what is there already, {checkpoints}, "
        f"export {size(export)}; {size(free)} free"
        f"{'' if total < free else ', NOT ENOUGH: ' + less}"
    )


def memory(
    model: LatentDiffusion,
    weights: Mapping[str, Tensor],
    update: int,
    micro_batch: int,
    *,
    optimizer: str = "adamw",
    averaged: bool,
    processes: int,
    copied: int = 0,
) -> str:
    """What an update will take on each process's device.

    Args:
        model: the base, prepared. weights: those that are trained.
        update: bytes of activations and gradients, see :func:`update_bytes`.
        micro_batch: samples at a time in a process.
        optimizer: its name.
        averaged: whether a moving average is kept.
        copied: bytes of copies of the base, see ``finetune.retention.regularise``.
        processes: of the launch; several exchange their gradients in buffers.
    """
    encoders: Iterable[nn.Module] = model.encoders
    if model.device.type == "cuda":  # the others are parked
        encoders = model.text_encoders.values() if model.captions == "tokens" else ()
    fixed = sum(weight.nbytes for part in (model.unet, *encoders) for weight in part.parameters())
    fixed += copied
    copies = averaged + (processes > 1)
    trained = _numbers(weights.values()) * _FP32 * copies + _held(optimizer, weights.values())
    total, device = fixed + trained + update, model.device
    text = (
        f"about {size(total)} an update: weights {size(fixed)}, optimizer{' and average' * averaged} {size(trained)}, "
        f"gradients and activations of {micro_batch} at a time {size(update)}"
    )
    if device.type != "cuda":
        return text
    there = torch.cuda.mem_get_info(device)[1]
    text += f"; the GPU has {size(there)}, {size(torch.cuda.max_memory_allocated(device))} at the peak so far"
    if total < there:
        return text
    return f"{text}, NOT ENOUGH: type a larger optim.gradient_accumulation, or optim.gradient_checkpointing=true"


def update_bytes(
    model: LatentDiffusion, unet: nn.Module, batch: Batch, micro_batch: int, mixed: str
) -> int:
    """Activations and gradients at the peak of an update, see ``finetune.peak``.

    Args:
        model: the base. unet: its own, or the ``Denoiser`` of both where text encoders are trained, not distributed.
        batch: gives the shapes. micro_batch: samples at a time. mixed: precision.
    """
    here: Any = copy.copy(model)  # on the CPU, as far as it knows
    here.schedule = model.schedule.to(torch.device("cpu"))
    conditioning = batch.conditioning
    if takes_captions(unet):
        unet = Denoiser(here)
    elif IDS in conditioning.tensors:  # a frozen text encoder keeps nothing for the backward pass
        conditioning = model.encode_tokens(conditioning.take([0]))
    given = {"latents": batch.latents, **conditioning.tensors}
    return peak.update_bytes(unet, here.predict, given, samples=micro_batch, mixed=mixed)


def heldout_share(config: TrainConfig, pictures: int) -> float:
    """What measuring held-out losses takes, the base's among them, as a share of what training takes.

    Counted in forward passes of the U-Net: a sample that is trained takes three, as the backward pass takes two
    (Kaplan et al. 2020, sec. 2.1).

    Args:
        config: of the training.
        pictures: that are measured at each evaluation, held out or not.

    >>> round(heldout_share(TrainConfig(), 64), 3)  # of 32 pictures held out, 32 of training
    0.089
    """
    heldout, size = config.heldout, config.optim.batch_size
    evaluations = 1 + sum(due(config, step)[1] for step in range(1, config.steps + 1))
    passes = evaluations * pictures * heldout.bins * heldout.draws
    return passes / (3 * config.steps * size)


def time_left(updates: int, update_s: float, evaluations: int, evaluation_s: float) -> str:
    """How long the rest will take; evaluations that take 0 s were not timed yet.

    >>> time_left(440, 1.25, 11, 30.0)
    'about 14 min 40 s more: 440 updates at 1.2 s, 11 evaluations at 30 s'
    """
    total = updates * update_s + evaluations * evaluation_s
    text = f"about {duration(total)} more: {updates:,} updates at {update_s:.2g} s"
    counted = f"{evaluations} evaluation{'s' if evaluations > 1 else ''}"
    if evaluations and evaluation_s:
        text += f", {counted} at {duration(evaluation_s)}"
    elif evaluations:
        text += f", and {counted}, of which none was timed yet"
    return text


def _held(optimizer: str, weights: Iterable[Tensor]) -> int:
    """Bytes that an optimizer holds for weights."""
    return state_bytes(optimizer, (tuple(weight.shape) for weight in weights))


def _numbers(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)
