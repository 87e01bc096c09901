"""Evaluations while training: held-out losses and pictures of the weights that would be exported, and their records."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from curate.run import checksums
from curate.run.progress import Bar
from finetune import metrics
from finetune.curve import HeldoutCurve
from finetune.early_stop import reason_to_stop
from finetune.ema import swapped_in
from finetune.heldout import HeldoutItems, grid_losses
from finetune.models.denoiser import Denoiser
from finetune.precision import computing_in
from finetune.time_spent import LOSSES, PICTURES
from finetune.training import Heldout, Interrupted, Training, refuse_to_go_on


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
    log(
        run,
        heldout=curve.objective(),
        heldout_base=curve.objective(0),
        heldout_relative=curve.heldout(),
        train_probe=float(train_probe.mean(dtype=np.float64)),
        train_probe_relative=curve.train_probe_loss(),
    )


def measure_start(run: Training, heldout: Heldout) -> None:
    """Note the losses of what training starts with."""
    curve = heldout.curve
    curve.start = (measure(run, heldout.val), measure(run, heldout.train_probe))
    change = curve.start_heldout()
    assert change is not None
    _store(run, curve)
    log(
        run,
        heldout=float(curve.start[0].mean(dtype=np.float64)),
        heldout_base=curve.objective(0),
        heldout_relative=change,
    )


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


def show(run: Training) -> None:
    """Give the trackers the pictures of this update, behind all other values of it."""
    step, pictures = run.samples.point(run.progress.step)
    if run.curves and pictures:
        run.curves.add(step, pictures)


def precision_of(run: Training) -> str:
    """In which the held-out losses are computed; weights that are held in fewer bits make it another one."""
    mixed, held = run.accelerator.mixed_precision, run.config.method.held()
    return mixed if held == "fp32" else f"{mixed}, weights {held}"


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


def _store(run: Training, curve: HeldoutCurve) -> None:
    if run.accelerator.is_main_process:
        with checksums.updated(run.folder, ("heldout.npz", "metrics.jsonl")):
            curve.save(run.folder / "heldout.npz")


def log(run: Training, **values: float) -> None:
    """Add a line to ``metrics.jsonl`` and the trackers, in the first process; what is not finite is null."""
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
