"""The training loop, the same on one process and on many; its only state is the run's progress."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from curate.run import checksums
from finetune import checkpoint, metrics
from finetune.config import OptimConfig, TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import Batch, Batches
from finetune.early_stop import reason_to_stop
from finetune.ema import Ema, swapped_in
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses
from finetune.models.interface import LatentDiffusion
from finetune.objective import denoising_loss


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite; no checkpoint was touched."""


@dataclass
class Progress:
    """How far the run is: what resuming needs beside the weights and the optimizer's state."""

    step: int = 0
    samples_seen: int = 0
    heldout: float | None = (
        None  # of the last evaluation, relative to the base; None: none yet, or not finite
    )
    stopped: str | None = None  # why the run ended early


@dataclass
class Heldout:
    """What is measured while training: held-out pictures, as many training pictures, the curve so far."""

    val: HeldoutItems
    train_probe: HeldoutItems
    grid: HeldoutGrid
    curve: HeldoutCurve


@dataclass
class Training:
    """Everything the loop needs, put together by ``finetune.run``.

    Attributes:
        folder: the run's ``finetune`` folder.
        identity: goes into ``state.json``, to tell whether a later start continues the same run.
        model: gives the noise levels and knows how its U-Net is called.
        unet: the model's, prepared by ``accelerator``.
        weights: those of its parameters that are trained.
        optimizer: over ``weights``, prepared too.
    """

    config: TrainConfig
    folder: Path
    identity: dict[str, Any]
    accelerator: Accelerator
    model: LatentDiffusion
    unet: nn.Module
    weights: dict[str, nn.Parameter]
    optimizer: Any
    ema: Ema | None
    batches: Batches
    heldout: Heldout | None
    progress: Progress = field(default_factory=Progress)


def fit(run: Training) -> Progress:
    """Train until the configured number of samples, or until the held-out loss says stop.

    Raises:
        NonFiniteLoss: names the update and the samples.
    """
    config, progress, size = run.config, run.progress, run.config.optim.batch_size
    if progress.step == 0 and run.heldout:
        evaluate(run)  # the base model's value comes first
    bar = tqdm(
        desc="train",
        total=config.steps * size,
        initial=progress.samples_seen,
        unit="img",
        disable=not run.accelerator.is_main_process,
    )
    run.unet.train()
    window, window_steps, window_s = torch.zeros((), device=run.accelerator.device), 0, 0.0
    while progress.step < config.steps and progress.stopped is None:
        started = time.perf_counter()
        batch = run.batches(progress.step).to(run.accelerator.device)
        lr = learning_rate(config.optim, progress.samples_seen, config.steps * size)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        loss, grad_norm = update(run, batch)
        before = progress.samples_seen
        progress.step += 1
        progress.samples_seen += size
        if run.ema:
            run.ema.update(run.weights, progress.step)
        window, window_steps = window + loss, window_steps + 1
        window_s += time.perf_counter() - started
        bar.update(size)

        last = progress.step == config.steps
        saves = last or _crossed(config.checkpoint.every, before, progress.samples_seen)
        evaluates = saves or _crossed(config.heldout.every, before, progress.samples_seen)
        if evaluates or _crossed(config.log.every, before, progress.samples_seen):
            total: Any = run.accelerator.reduce(window, "sum")
            mean = total.item() / (window_steps * size)
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            speed = window_steps * size / window_s
            _log(run, loss=mean, lr=lr, grad_norm=grad_norm, samples_per_s=round(speed, 2))
            window, window_steps, window_s = torch.zeros_like(window), 0, 0.0
        if evaluates and run.heldout:
            evaluate(run)
            run.unet.train()
        if saves or progress.stopped:
            save(run)
    bar.close()
    return progress


def update(run: Training, batch: Batch) -> tuple[Tensor, float]:
    """One optimizer step on this process's share of a batch.

    Losses are summed and divided by the size of the whole batch, so that every sample weighs the same
    on any number of processes and micro-batches.

    Returns:
        The sum of the share's losses, and the norm of the whole batch's gradient before clipping.
    """
    accelerator, optim = run.accelerator, run.config.optim
    scale = accelerator.num_processes / optim.batch_size  # DDP divides by the number of processes
    losses = []
    for number, part in enumerate(batch.split(optim.gradient_accumulation), start=1):
        last = number == optim.gradient_accumulation
        with nullcontext() if last else accelerator.no_sync(run.unet):
            loss = denoising_loss(
                partial(run.model.predict, run.unet),
                run.model.schedule,
                part.latents,
                part.noise,
                part.timesteps,
                part.conditioning,
            )
            accelerator.backward(loss.sum() * scale)
        losses.append(loss.detach())
    grad_norm = accelerator.clip_grad_norm_(run.weights.values(), optim.max_grad_norm)
    grad_norm = float(grad_norm)  # type: ignore[arg-type]
    refuse_non_finite(run, batch, torch.cat(losses), grad_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return torch.cat(losses).sum(), grad_norm


def refuse_non_finite(run: Training, batch: Batch, losses: Tensor, grad_norm: float) -> None:
    """Raise before the optimizer sees NaN. In fp16 the gradient may overflow: the scaler skips that step."""
    if math.isfinite(grad_norm) and bool(losses.isfinite().all()):
        return
    if run.accelerator.scaler is not None and bool(losses.isfinite().all()):
        return
    finite = losses.isfinite().tolist()
    keys = [key for key, ok in zip(batch.keys, finite, strict=True) if not ok] or batch.keys
    raise NonFiniteLoss(
        f"update {run.progress.step + 1} (after {run.progress.samples_seen} samples): loss "
        f"{losses.mean().item()}, gradient norm {grad_norm}; samples {', '.join(keys[:8])}"
        f"{' ...' if len(keys) > 8 else ''}. The last checkpoint is unharmed; a lower optim.lr may help"
    )


def learning_rate(optim: OptimConfig, samples_seen: int, total: int) -> float:
    """The rate of the update that starts at ``samples_seen``: linear warm-up, then the schedule to ``total``.

    >>> learning_rate(OptimConfig(lr=1.0, schedule="linear", batch_size=10), 50, 100)
    0.5
    """
    if samples_seen < optim.warmup:
        return optim.lr * min(1.0, (samples_seen + optim.batch_size) / optim.warmup)
    done = (samples_seen - optim.warmup) / max(1, total - optim.warmup)
    factor = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
    }
    return optim.lr * factor[optim.schedule]


def evaluate(run: Training) -> None:
    """Measure the weights that would be exported, log their losses, and decide whether to stop."""
    heldout = run.heldout
    assert heldout is not None
    exported = run.ema.shadow if run.ema else run.weights
    with swapped_in(exported, run.weights):
        val, train_probe = (measure(run, items) for items in (heldout.val, heldout.train_probe))
    curve = heldout.curve
    curve.add(run.progress.step, run.progress.samples_seen, val, train_probe)
    run.progress.heldout = _finite(curve.heldout())
    run.progress.stopped = reason_to_stop(curve, run.config.heldout.patience)
    if run.accelerator.is_main_process:
        with checksums.updated(run.folder, ("heldout.npz", "metrics.jsonl")):
            curve.save(run.folder / "heldout.npz")
    _log(
        run,
        heldout=curve.objective(),
        heldout_base=curve.objective(0),
        heldout_relative=curve.heldout(),
        train_probe=float(train_probe.mean(dtype=np.float64)),
        train_probe_relative=curve.train_probe_loss(),
    )


def measure(run: Training, items: HeldoutItems) -> np.ndarray:
    """Grid losses [N, bins, draws] of ``items``, each process doing its share."""
    accelerator, heldout = run.accelerator, run.heldout
    assert heldout is not None
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    losses = np.zeros((len(items), heldout.grid.bins, heldout.grid.draws), np.float32)
    mine = items.take(share)
    with tqdm(
        desc="held-out",
        total=len(mine) * heldout.grid.bins * heldout.grid.draws,
        leave=False,
        disable=not accelerator.is_main_process,
    ) as bar:
        unet = accelerator.unwrap_model(run.unet)
        size = run.config.heldout.batch_size
        losses[share] = grid_losses(run.model, unet, mine, heldout.grid, size, bar.update)
    total = accelerator.reduce(torch.from_numpy(losses).to(accelerator.device), "sum")
    return total.cpu().numpy()  # type: ignore[union-attr]


def save(run: Training) -> None:
    """Store a checkpoint, once for all processes."""
    scaler = run.accelerator.scaler
    state = {
        **vars(run.progress),
        "identity": run.identity,
        "scaler": scaler.state_dict() if scaler else None,
    }
    if run.accelerator.is_main_process:
        written = f"checkpoints/step-{run.progress.step:08d}/"
        with checksums.updated(run.folder, (written, "metrics.jsonl")):
            checkpoint.save(
                run.folder,
                state,
                run.weights,
                run.ema.shadow if run.ema else None,
                run.optimizer,
                run.config.checkpoint.keep,
            )
    run.accelerator.wait_for_everyone()


def _log(run: Training, **values: float) -> None:
    if run.accelerator.is_main_process:
        position = {"step": run.progress.step, "samples_seen": run.progress.samples_seen}
        finite = {name: _finite(value) for name, value in values.items()}
        metrics.append(run.folder / "metrics.jsonl", {**position, **finite})


def _finite(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def _crossed(every: int, before: int, after: int) -> bool:
    return after // every > before // every
