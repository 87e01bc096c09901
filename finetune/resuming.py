"""Go on from the last checkpoint: weights, optimizer, records and the held-out curve as they were then."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import torch
from accelerate import Accelerator

from curate.run import checksums
from finetune import (
    checkpoint,
    doctor,
    metrics,
)
from finetune.checkpoint import Checkpoint
from finetune.curve import HeldoutCurve
from finetune.ema import copy_into
from finetune.evaluating import measure, precision_of
from finetune.npz import DamagedArrays
from finetune.training import Progress, Training, Window


def resume(run: Training, stored: list[Checkpoint]) -> None:
    """Restore the last checkpoint and cut the records back to it; without one, start with no records."""
    main = run.accelerator.is_main_process
    if not stored:
        if main:
            _cut(run, step=-1)
        return
    last = stored[-1]
    state = last.state()
    changes = doctor.changed(run.config, state, run.identity)
    run.progress = Progress(last.step, last.samples_seen, last.heldout, state["stopped"], changes)
    if run.heldout:
        run.heldout.curve = _curve(run, stored)
    copy_into(run.weights, last.weights(ema=False))
    if run.ema:
        copy_into(run.ema.shadow, last.weights(ema=True))
    checkpoint.restore_optimizer(run.optimizer.optimizer, run.weights, last)
    run.stored = last.step
    if last.interrupted:
        run.window = restored(state["interrupted"], run.accelerator)
    if run.accelerator.scaler and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.accelerator.wait_for_everyone()  # all have read heldout.npz before it is written again
    if main:
        _cut(run, last.step)
        if run.heldout:
            with checksums.updated(run.folder, ("heldout.npz",)):
                run.heldout.curve.save(run.folder / "heldout.npz")
    run.accelerator.print(f"resuming after {last.samples_seen} samples, at {last.path}")


def _cut(run: Training, step: int) -> None:
    """Cut what training writes as it goes back to an update."""
    with checksums.updated(run.folder, ("metrics.jsonl",)):
        run.samples.cut(step)
        metrics.truncate(run.folder / "metrics.jsonl", step)


def restored(unlogged: dict[str, Any], accelerator: Accelerator) -> Window:
    """What was trained and not logged yet; on another number of processes the first takes all of it."""
    losses, rank = unlogged["losses"], accelerator.process_index
    if len(losses) != accelerator.num_processes:
        losses = [sum(losses), *repeat(0.0, accelerator.num_processes - 1)]
    loss = torch.tensor(losses[rank], device=accelerator.device)
    return Window(loss, unlogged["steps"], unlogged["seconds"])


def _curve(run: Training, stored: list[Checkpoint]) -> HeldoutCurve:
    """The evaluations up to the last checkpoint; if ``heldout.npz`` is gone, of base, start and checkpoints.

    So it is where an earlier version measured other pictures of the same data. Leaves the trained weights at
    any of the checkpoints.
    """
    path, heldout = run.folder / "heldout.npz", run.heldout
    assert heldout is not None
    try:
        found = HeldoutCurve.load(path, up_to=stored[-1].step)
        if (found.val_keys, found.train_probe_keys) == (heldout.val.keys, heldout.train_probe.keys):
            return found
        why = f"{path} is of other pictures, which an earlier version chose"
    except (FileNotFoundError, DamagedArrays) as error:
        why = str(error)
    run.accelerator.print(f"{why}; measured again: the base and {len(stored)} checkpoints")
    curve = HeldoutCurve.of(heldout.val, heldout.train_probe)
    started = [run.start] if run.start else []
    for row in (None, *started, *(found for found in stored if not found.interrupted)):
        if row:
            copy_into(run.weights, row.weights())
        val, train_probe = (measure(run, items) for items in (heldout.val, heldout.train_probe))
        if row is not None and row is run.start:
            curve.start = (val, train_probe)
            continue
        at = (row.step, row.samples_seen) if row else (0, 0)
        curve.add(*at, val, train_probe, precision_of(run))
    run.accelerator.wait_for_everyone()  # all have seen that it is damaged
    if run.accelerator.is_main_process:
        with checksums.updated(run.folder, (path.name,)):
            curve.save(path)
    return curve
