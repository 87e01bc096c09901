"""The training loop, the same on one process and on many; its only state is the run's progress."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from curate.run import checksums
from curate.run.progress import Bar
from curate.run.signals import StopRequest
from curate.run.tracking import Curves
from finetune import checkpoint, compiled, forecast, metrics
from finetune.checkpoint import Checkpoint
from finetune.config import OptimConfig, TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import Batch, Batches
from finetune.due import crossed, due
from finetune.early_stop import reason_to_stop
from finetune.ema import Ema, copy_into, swapped_in
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses
from finetune.models.denoiser import Denoiser
from finetune.models.interface import LatentDiffusion
from finetune.objective import denoising_loss
from finetune.precision import computing_in
from finetune.retention.regularise import Regulariser
from finetune.samples import Samples
from finetune.time_spent import BATCHES, CHECKPOINTS, LOSSES, PICTURES, UPDATES, TimeSpent

_TIMED = 10  # updates before the rest is forecast; the first ones take longer


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite; no checkpoint was touched."""


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; how far the run is was stored."""


@dataclass
class Progress:
    """How far the run is: what resuming needs beside the weights and the optimizer's state."""

    step: int = 0
    samples_seen: int = 0
    heldout: float | None = (
        None  # of the last evaluation, relative to the base; None: none yet, or not finite
    )
    stopped: str | None = None  # why the run ended early
    changes: list[dict[str, Any]] = field(default_factory=list)  # see ``doctor.changed``


@dataclass
class Window:
    """What has been trained since the last line of ``metrics.jsonl``.

    Attributes:
        loss: this process's sum over its samples.
        steps: updates. seconds: that they took.
    """

    loss: Tensor
    steps: int = 0
    seconds: float = 0.0


@dataclass
class Heldout:
    """What is measured while training: held-out pictures, as many training pictures, the curve so far.

    Attributes:
        base: the base's losses of ``val`` [N, bins, draws], where they were measured before the loop.
        seconds: that a picture took in the last measurement; 0 before. drawing: that the pictures of the last
            evaluation took to be drawn.
    """

    val: HeldoutItems
    train_probe: HeldoutItems
    grid: HeldoutGrid
    curve: HeldoutCurve
    base: np.ndarray | None = None
    seconds: float = 0.0
    drawing: float = 0.0


@dataclass
class Training:
    """Everything the loop needs, put together by ``finetune.run``.

    Attributes:
        folder: the run's ``finetune`` folder.
        identity: goes into ``state.json``, to tell whether a later start continues the same run.
        model: gives the noise levels and knows how its U-Net is called.
        unet: the model's, prepared by ``accelerator``; where text encoders are trained, the ``Denoiser`` of both.
        weights: those of its parameters that are trained.
        optimizer: over ``weights``, prepared too.
        loss_weights: by timestep, see ``finetune.objective``; None where all are 1.
        regulariser: the base as it was, where the loss holds on to it.
        samples: draws pictures at every evaluation.
        start: what it starts with; None where that is the base, which ``weights`` are of until then.
        window: for the next line of ``metrics.jsonl``.
        stored: the update of the last checkpoint.
        stop: whether a signal asked to stop.
        curves: get what ``metrics.jsonl`` gets, in the first process.
        spent: what the time since the start went to.
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
    loss_weights: Tensor | None
    heldout: Heldout | None
    samples: Samples
    window: Window
    regulariser: Regulariser | None = None
    start: Checkpoint | None = None
    progress: Progress = field(default_factory=Progress)
    stored: int = 0
    stop: StopRequest = field(default_factory=StopRequest)
    curves: Curves | None = None
    spent: TimeSpent = field(default_factory=TimeSpent)


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
            _measure_start(run, run.heldout)
    show(run)


def _measure_start(run: Training, heldout: Heldout) -> None:
    """Note the losses of what training starts with."""
    curve = heldout.curve
    curve.start = (measure(run, heldout.val), measure(run, heldout.train_probe))
    change = curve.start_heldout()
    assert change is not None
    _store(run, curve)
    _log(
        run,
        heldout=float(curve.start[0].mean(dtype=np.float64)),
        heldout_base=curve.objective(0),
        heldout_relative=change,
    )


def _store(run: Training, curve: HeldoutCurve) -> None:
    if run.accelerator.is_main_process:
        with checksums.updated(run.folder, ("heldout.npz", "metrics.jsonl")):
            curve.save(run.folder / "heldout.npz")


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


def refuse_to_go_on(run: Training) -> None:
    """Raise if a signal asked any of the processes to stop; all of them do, at the same place.

    Raises:
        Interrupted: as it says.
    """
    asked = run.stop.made is not None
    if run.accelerator.num_processes > 1:
        mine = torch.tensor(float(asked), device=run.accelerator.device)
        total: Any = run.accelerator.reduce(mine, "sum")
        asked = total.item() > 0
    if asked:
        raise Interrupted


def _log_window(run: Training, grad_norm: float, **lr: float) -> float:
    """Log the updates since the last line; returns their mean loss."""
    window = run.window
    samples = window.steps * run.config.optim.batch_size
    total: Any = run.accelerator.reduce(window.loss, "sum")
    of_data = samples - window.steps * run.batches.replayed
    mean, speed = total.item() / of_data, samples / window.seconds
    _log(run, loss=mean, **lr, grad_norm=grad_norm, samples_per_s=round(speed, 2))
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


def evaluate(run: Training) -> None:
    """Draw pictures from the weights that would be exported, measure them, and decide whether to stop."""
    exported = run.ema.shadow if run.ema else run.weights
    with swapped_in(exported, run.weights):
        started = time.perf_counter()
        draw(run)
        if run.heldout is None:
            return
        run.heldout.drawing = time.perf_counter() - started
        known = run.heldout.base if run.progress.step == 0 else None
        with run.spent.on(LOSSES):
            val = measure(run, run.heldout.val) if known is None else known
            train_probe = measure(run, run.heldout.train_probe)
    curve = run.heldout.curve
    seen = run.progress.step, run.progress.samples_seen
    curve.add(*seen, val, train_probe, precision_of(run))
    run.progress.heldout = _finite(curve.heldout())
    run.progress.stopped = reason_to_stop(curve, run.config.heldout.patience)
    _store(run, curve)
    _log(
        run,
        heldout=curve.objective(),
        heldout_base=curve.objective(0),
        heldout_relative=curve.heldout(),
        train_probe=float(train_probe.mean(dtype=np.float64)),
        train_probe_relative=curve.train_probe_loss(),
    )


def precision_of(run: Training) -> str:
    """In which the held-out losses are computed; weights that are held in fewer bits make it another one."""
    mixed, held = run.accelerator.mixed_precision, run.config.method.held()
    return mixed if held == "fp32" else f"{mixed}, weights {held}"


def draw(run: Training) -> None:
    """Draw the pictures of this update, in the first process.

    Raises:
        Interrupted: a signal asked to stop.
    """
    accelerator, step = run.accelerator, run.progress.step
    if accelerator.is_main_process:
        network = accelerator.unwrap_model(run.unet)
        training = network.training
        with run.spent.on(PICTURES), _alone(run, network.eval()) as unet:
            run.samples.draw(step, partial(_identity, run), unet, lambda: run.stop.made is None)
            run.model.park()
        network.train(training)
    refuse_to_go_on(run)


@contextmanager
def _alone(run: Training, network: nn.Module) -> Iterator[nn.Module]:
    """The U-Net to draw with, in the precision of training, whether it is trained alone or behind text encoders."""
    if not isinstance(network, Denoiser):
        yield network
        return
    with computing_in(run.accelerator.mixed_precision, network.unet):
        yield network.unet


def _identity(run: Training, step: int) -> list[Any]:
    """What the weights of an update depend on."""
    seen = step * run.config.optim.batch_size
    return [run.identity, [each for each in run.progress.changes if each["samples_seen"] < seen]]


def show(run: Training) -> None:
    """Give the trackers the pictures of this update, behind all other values of it."""
    step, pictures = run.samples.point(run.progress.step)
    if run.curves and pictures:
        run.curves.add(step, pictures)


def measure(run: Training, items: HeldoutItems) -> np.ndarray:
    """Grid losses [N, bins, draws] of ``items``, each process doing its share.

    Raises:
        Interrupted: a signal asked to stop.
    """
    accelerator, heldout = run.accelerator, run.heldout
    assert heldout is not None
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    losses = np.zeros((len(items), heldout.grid.bins, heldout.grid.draws), np.float32)
    mine = items.take(share)
    started = time.perf_counter()
    with Bar(
        desc="held-out",
        total=len(mine) * heldout.grid.bins * heldout.grid.draws,
        leave=False,
        disable=not accelerator.is_main_process,
    ) as bar:
        unet = accelerator.unwrap_model(run.unet)
        size = run.config.heldout.at_once(run.model.resolution)

        def after_batch(count: int) -> None:
            bar.update(count)
            if run.stop.made:
                raise Interrupted

        with suppress(Interrupted):  # the other processes have to hear of it first
            losses[share] = grid_losses(run.model, unet, mine, heldout.grid, size, after_batch)
    refuse_to_go_on(run)
    heldout.seconds = (time.perf_counter() - started) / len(items)
    total = accelerator.reduce(torch.from_numpy(losses).to(accelerator.device), "sum")
    return total.cpu().numpy()  # type: ignore[union-attr]


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


def _log(run: Training, **values: float) -> None:
    if run.accelerator.is_main_process:
        position = {"step": run.progress.step, "samples_seen": run.progress.samples_seen}
        finite = {name: _finite(value) for name, value in values.items()}
        record = {**position, **finite}
        metrics.append(run.folder / "metrics.jsonl", record)
        if run.curves:
            run.curves.add(*metrics.point(record))


def _finite(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
