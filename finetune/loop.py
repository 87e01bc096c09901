"""The training loop, the same on one process and on many; its only state is the run's progress."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from curate.run import checksums
from curate.run.progress import Bar
from finetune import checkpoint, compiled, forecast
from finetune.config import OptimConfig, TrainConfig
from finetune.data import Batch
from finetune.due import crossed, due
from finetune.ema import copy_into
from finetune.evaluating import evaluate, log, measure_start, show
from finetune.objective import denoising_loss
from finetune.time_spent import BATCHES, CHECKPOINTS, UPDATES
from finetune.training import Interrupted, Progress, Training, Window, refuse_to_go_on

_TIMED = 10  # updates before the rest is forecast; the first ones take longer


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite; no checkpoint was touched."""


def fit(run: Training) -> Progress:
    """Train until the configured number of samples, or until the held-out loss says stop.

    SIGTERM, SIGUSR1 and Ctrl-C are obeyed after the update, or inside a held-out pass after the batch.

    Raises:
        NonFiniteLoss: names the update and the samples.
        Interrupted: a signal asked to stop, and a checkpoint holds all updates so far.
    """
    with run.stop.deferred():
        try:
            catch_up(run)
            _train(run)
            if run.accelerator.is_main_process:
                for line in run.spent.lines():
                    Bar.write(f"time    {line}")
        except Interrupted:
            if run.progress.step == 0:
                raise
            if run.stored != run.progress.step:
                save(run, interrupted=True)
            raise Interrupted(
                f"a checkpoint after {run.progress.samples_seen} samples is stored"
            ) from None
    return run.progress


def catch_up(run: Training) -> None:
    """Do what is due before the next update: see :func:`begin`, or an evaluation that was interrupted."""
    step = run.progress.step
    if step == 0:
        begin(run)
        return
    saves, evaluates = due(run.config, step)
    if not evaluates or (run.heldout and run.heldout.curve.steps[-1] == step):
        return
    evaluate(run)
    show(run)
    if run.heldout and (saves or run.progress.stopped):
        save(run)


def begin(run: Training) -> None:
    """Evaluate the base model, then put what training starts with in its place, and measure that too."""
    evaluate(run)
    if run.start:
        values = run.start.weights()
        copy_into(run.weights, values)
        if run.ema:
            copy_into(run.ema.shadow, values)
        if run.heldout:
            measure_start(run, run.heldout)
    show(run)


def _train(run: Training) -> None:
    config, progress, size = run.config, run.progress, run.config.optim.batch_size
    with Bar(
        desc="train",
        total=config.steps * size,
        initial=progress.samples_seen,
        unit="img",
        disable=not run.accelerator.is_main_process,
    ) as bar:
        run.unet.train()
        seconds: list[float] = []
        while progress.step < config.steps and progress.stopped is None:
            started = time.perf_counter()
            with run.spent.on(BATCHES):
                batch = run.batches(progress.step).to(run.accelerator.device)
            lr, *others = rates(config, progress.samples_seen)
            for group, rate in zip(run.optimizer.param_groups, [lr, *others], strict=True):
                group["lr"] = rate
            with run.spent.on(UPDATES):
                with compiled.used(run.model.unet):
                    loss, grad_norm = update(run, batch)
                progress.step += 1
                progress.samples_seen += size
                if run.ema:
                    run.ema.update(run.weights, progress.step)
            run.window.loss += loss
            run.window.steps += 1
            seconds.append(time.perf_counter() - started)
            run.window.seconds += seconds[-1]
            bar.update(size)
            if len(seconds) == _TIMED and run.accelerator.is_main_process:
                Bar.write(f"time    {_time_left(run, median(seconds))}")

            saves, evaluates = due(config, progress.step)
            if evaluates or crossed(config.log.every, progress.step, size):
                named = dict(zip(["text_encoder_lr"], others, strict=False))
                mean = _log_window(run, grad_norm, lr=lr, **named)
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            if evaluates:
                evaluate(run)
                show(run)
                run.unet.train()
            if saves or progress.stopped:
                with run.spent.on(CHECKPOINTS):
                    save(run)
            refuse_to_go_on(run)


def _time_left(run: Training, update_s: float) -> str:
    """How long the rest will take, from the seconds of an update so far and of the last evaluation."""
    left = range(run.progress.step + 1, run.config.steps + 1)
    if run.heldout is None:
        return forecast.time_left(len(left), update_s, 0, 0.0)
    heldout, evaluations = run.heldout, sum(due(run.config, step)[1] for step in left)
    measuring = (len(heldout.val) + len(heldout.train_probe)) * heldout.seconds
    return forecast.time_left(len(left), update_s, evaluations, measuring + heldout.drawing)


def _log_window(run: Training, grad_norm: float, **lr: float) -> float:
    """Log the updates since the last line; returns their mean loss."""
    window = run.window
    samples = window.steps * run.config.optim.batch_size
    total: Any = run.accelerator.reduce(window.loss, "sum")
    of_data = samples - window.steps * run.batches.replayed
    mean, speed = total.item() / of_data, samples / window.seconds
    log(run, loss=mean, **lr, grad_norm=grad_norm, samples_per_s=round(speed, 2))
    run.window = Window(torch.zeros_like(window.loss))
    return mean


def update(run: Training, batch: Batch) -> tuple[Tensor, float]:
    """One optimizer step on this process's share of a batch.

    Losses are summed and divided by the size of the whole batch, so that every sample weighs the same
    on any number of processes and micro-batches.

    Returns:
        The sum of the losses of the share's samples that are not replayed, unweighted, and the norm of the whole
        batch's gradient before clipping.
    """
    accelerator, optim = run.accelerator, run.config.optim
    scale = accelerator.num_processes / optim.batch_size  # DDP divides by the number of processes
    losses, weights, held = [], run.loss_weights, run.regulariser
    for number, part in enumerate(batch.split(optim.gradient_accumulation), start=1):
        last = number == optim.gradient_accumulation
        with nullcontext() if last else accelerator.no_sync(run.unet):
            with accelerator.autocast():
                target = held.target(part) if held else None
            loss = denoising_loss(
                partial(run.model.predict, run.unet),
                run.model.schedule,
                part.latents,
                part.noise,
                part.timesteps,
                part.conditioning,
                part.added,
                target,
            )
            weighted = loss if weights is None else loss * weights[part.timesteps]
            if held and (factors := held.weights(part)) is not None:
                weighted = weighted * factors
            accelerator.backward(weighted.sum() * scale)
        losses.append(loss.detach())
    if held:
        scaler = accelerator.scaler
        held.add_gradient(run.weights, scaler.get_scale() if scaler else 1.0)
    grad_norm = accelerator.clip_grad_norm_(run.weights.values(), optim.max_grad_norm)
    grad_norm = float(grad_norm)  # type: ignore[arg-type]
    refuse_non_finite(run, batch, torch.cat(losses), grad_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    of_data = torch.cat(losses)
    return (of_data if batch.replayed is None else of_data[~batch.replayed]).sum(), grad_norm


def refuse_non_finite(run: Training, batch: Batch, losses: Tensor, grad_norm: float) -> None:
    """Raise, on all processes, before the optimizer sees NaN.

    The gradient is the mean over the processes, so it says on all of them that one has NaN; only the losses
    say which. In fp16 the gradient may overflow: the scaler skips that step.

    Args:
        run: the training.
        batch: this process's share, ``losses`` [n] those of its samples.
        grad_norm: of the whole batch.

    Raises:
        NonFiniteLoss: names the samples whose loss is not finite, whichever process they are on; all samples of the
            update where only the gradient is not.
    """
    finite, processes = losses.isfinite(), run.accelerator.num_processes
    signs = torch.stack([~finite.all(), losses.new_tensor(not math.isfinite(grad_norm)) > 0])
    total: Any = run.accelerator.reduce(signs.float(), "sum")
    bad, overflown = total.tolist()
    if not bad and (not overflown or run.accelerator.scaler is not None):
        return
    spoilt = [key for key, ok in zip(batch.keys, finite.tolist(), strict=True) if not ok]
    mine = run.accelerator.process_index, losses.mean().item(), spoilt, batch.keys
    found: list[Any] = gather_object([mine])
    found = [each for each in found if each[2]] or found
    keys = [key for _, _, spoilt, share in found for key in spoilt or share]
    ranks = ", ".join(str(rank) for rank, *_ in found)
    where = f" on process {ranks} of 0 to {processes - 1}" if bad and processes > 1 else ""
    raise NonFiniteLoss(
        f"update {run.progress.step + 1} (after {run.progress.samples_seen} samples){where}: loss "
        f"{found[0][1]}, gradient norm {grad_norm}; samples {', '.join(keys[:8])}"
        f"{' ...' if len(keys) > 8 else ''}. The last checkpoint is unharmed; a lower optim.lr may help"
    )


def rates(config: TrainConfig, samples_seen: int) -> list[float]:
    """The rate of each group of weights: the U-Net's, then that of text encoders, if they are trained."""
    optim, total = config.optim, config.steps * config.optim.batch_size
    lrs = [optim.lr]
    if config.method.text_encoder:
        lrs.append(optim.lr if optim.text_encoder_lr is None else optim.text_encoder_lr)
    return [learning_rate(replace(optim, lr=lr), samples_seen, total) for lr in lrs]


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


def save(run: Training, interrupted: bool = False) -> None:
    """Store a checkpoint, once for all processes.

    Args:
        run: the training.
        interrupted: the checkpoint is only for resuming: it was not evaluated, and the next one
            replaces it.
    """
    scaler = run.accelerator.scaler
    state = {
        **vars(run.progress),
        "identity": run.identity,
        "scaler": scaler.state_dict() if scaler else None,
    }
    if interrupted:
        losses: Any = run.accelerator.gather(run.window.loss.reshape(1))
        unlogged = {
            "losses": losses.tolist(),
            "steps": run.window.steps,
            "seconds": run.window.seconds,
        }
        state |= {"heldout": None, "interrupted": unlogged}
    if run.accelerator.is_main_process:
        written = f"checkpoints/step-{run.progress.step:08d}/"
        changes = [written, "metrics.jsonl"]
        with checksums.updated(run.folder, changes):
            average = run.ema.shadow if run.ema else None
            checkpoint.save(run.folder, state, run.weights, average, run.optimizer)
            changes += checkpoint.settle(run.folder, run.config.kept_states)
    run.stored = run.progress.step
    run.accelerator.wait_for_everyone()
