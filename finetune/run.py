"""Run one training: encode, resume, train, export the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from curate.run import checksums, tracking
from curate.run.files import remove_parts
from curate.run.finished import is_of_retraining
from curate.run.manifest import Manifest
from curate.run.next_command import next_arguments
from curate.run.provenance import write_config
from curate.run.schema import UserError
from finetune import (
    base_check,
    caption_check,
    checkpoint,
    checks,
    doctor,
    frozen,
    joined,
    lost_in_encoding,
    metrics,
    overview,
    samples,
    seen_before,
    start,
    trained_on,
)
from finetune.assemble import assemble, encode
from finetune.checkpoint import Checkpoint, list_checkpoints
from finetune.config import TrainConfig
from finetune.ema import copy_into
from finetune.export import (
    base_values,
    described,
    export,
    holds,
    to_set_of,
    trigger_of,
    values_of,
)
from finetune.loop import fit
from finetune.methods import prepare_model
from finetune.models import load_model, load_pipeline
from finetune.models.interface import LatentDiffusion
from finetune.resuming import resume
from finetune.retention import scale, sweep
from finetune.training import Heldout, Training

ENCODING_TIMEOUT = timedelta(hours=6)  # processes wait for the one whose shards take longest


def train(config: TrainConfig, manifest: Manifest) -> None:
    """Fine-tune as configured, from the last checkpoint if the run was interrupted."""
    accelerator = _start(config)
    folder = config.folder
    broken = _damaged(folder, accelerator)
    if accelerator.is_main_process:  # what a killed process left
        remove_parts(folder)
        _settle(folder, config.kept_states)
    accelerator.wait_for_everyone()
    stored = list_checkpoints(folder)
    if _is_finished(config, stored) and not broken:
        accelerator.print(f"{folder} is complete: {overview.after(folder, stored)}")
        if accelerator.is_main_process:
            with checksums.updated(folder, ()):
                pass  # checkpoints may have been deleted
            tracking.write(config.tracker, folder, _points(folder), resumes=True)
        return
    model = load_model(
        config.model,
        accelerator.device,
        config.captions,
        zero_terminal_snr=config.objective.zero_terminal_snr,
    )
    identity = {**doctor.identity(config, manifest), "weights": model.fingerprint()}
    if stored:
        doctor.refuse_to_resume(config, stored[-1].state(), identity)
    if config.data.runs and accelerator.is_main_process:
        joined.keep(config, manifest)
    frozen.round_to(model.unet, config.method.held())
    prepare_model(model, config.method, config.train.seed)  # refuses what does not fit, at once
    frozen.hold(model.unet, config.method.held())
    _keep_start(config, manifest, identity, accelerator, model, bool(stored))
    if accelerator.is_main_process:
        lost = checks.look_at(config, manifest, model, bool(stored))
        accelerator.print(overview.labelled(lost))
    splits = encode(config, manifest, accelerator, model)
    run = assemble(config, manifest, identity, accelerator, model, splits)
    checks.check(run, manifest, bool(stored))
    if accelerator.is_main_process:
        with checksums.updated(folder, ("config.yaml", trained_on.FILE)):
            write_config(folder / "config.yaml", config)
            trained_on.write(folder, config.curate_dir, manifest, identity["shards"])
    resume(run, stored)
    model.park()
    accelerator.print(overview.before(run, len(splits[1]) if run.heldout else 0))
    with _tracked(run):
        fit(run)
    if accelerator.is_main_process:
        with checksums.updated(folder, ("export/",)):
            _export_best(config, model, list_checkpoints(folder), accelerator, run.heldout)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _settle(folder: Path, keep: int | None) -> None:
    """What was left to do after the last checkpoint, or is due as ``checkpoint.keep`` is another by now."""
    changes: list[str] = []
    listed = (folder / checksums.FILE).exists()
    with checksums.updated(folder, changes) if listed else nullcontext():
        changes += checkpoint.settle(folder, keep)


def _keep_start(
    config: TrainConfig,
    manifest: Manifest,
    identity: dict[str, Any],
    accelerator: Accelerator,
    model: LatentDiffusion,
    has_started: bool,
) -> None:
    """Copy what ``method.init`` names into the run's folder; refuses what does not fit, on all processes."""
    if identity["init"] and start.examined(config):
        start.warn_of_another_base(config, identity["weights"])
    kept = start.is_kept(config.folder, identity["init"])
    if not kept or (identity["init"] and not has_started):  # of an attempt on other data, perhaps
        main = accelerator.is_main_process
        with checksums.updated(config.folder, (f"{start.FOLDER}/",)) if main else nullcontext():
            known = sorted(start.seen(config.folder)) if has_started else []
            seen = known or seen_before.examine(config, manifest, silent=True)
            start.keep(config, model, identity["init"], seen, writes=main)
    accelerator.wait_for_everyone()


def _start(config: TrainConfig) -> Accelerator:
    """Join the launch. Without ``cpu=True`` its processes would not find each other on CPUs."""
    cpu = not torch.accelerator.is_available()
    precision = config.optim.mixed_precision
    if cpu and precision == "fp16":
        raise UserError(
            "optim.mixed_precision=fp16 needs a GPU; type optim.mixed_precision=bf16 or no"
        )
    timeout = InitProcessGroupKwargs(timeout=ENCODING_TIMEOUT)
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[timeout])
    size, pieces = config.optim.batch_size, config.optim.gradient_accumulation
    if size % (accelerator.num_processes * pieces):
        raise UserError(
            f"optim.batch_size={size} does not divide over {accelerator.num_processes} processes and "
            f"optim.gradient_accumulation={pieces}; make it a multiple of "
            f"{accelerator.num_processes * pieces}"
        )
    return accelerator


def _damaged(folder: Path, accelerator: Accelerator) -> bool:
    """Whether files that a finished training leaves have to be made again; says which.

    Damaged checkpoints at the end are set aside, so that training goes on from the one before.

    Raises:
        UserError: there is none to go on from; on all processes.
    """
    remade = (
        "config.yaml",
        base_check.FILE,
        caption_check.FILE,
        lost_in_encoding.FILE,
        trained_on.FILE,
        scale.FILE,
        "export/",
        "heldout.npz",
        "metrics.jsonl",
        f"{start.FOLDER}/",
    )
    names = checksums.damaged(folder, remade)
    for name in names:
        again = "it is kept as far as it can be read" if name in checksums.GROWING else "made again"
        accelerator.print(f"{folder / name} is damaged: {again}")
    accelerator.wait_for_everyone()  # all have looked
    refused: list[str] = [""]
    if accelerator.is_main_process:
        try:
            for line in checkpoint.set_aside_damaged(folder):
                accelerator.print(line)
        except UserError as error:
            refused = [str(error)]
    broadcast_object_list(refused)
    if refused[0]:
        raise UserError(refused[0])
    return bool(names)


def _is_finished(config: TrainConfig, stored: list[Checkpoint]) -> bool:
    if not stored or stored[-1].interrupted:
        return False
    trained = stored[-1].step >= config.steps or stored[-1].state()["stopped"] is not None
    if not trained:
        return False
    exported = sweep.at_its_scale(config, checkpoint.best_of(stored))
    return exported is not None and holds(config.folder / "export", exported)


@contextmanager
def _tracked(run: Training) -> Iterator[None]:
    """Give the trackers what is logged, from the first line of ``metrics.jsonl`` on."""
    if not run.accelerator.is_main_process:
        yield
        return
    with tracking.curves(run.config.tracker, run.folder, _points(run.folder)) as run.curves:
        yield


def _points(folder: Path) -> list[tracking.Point]:
    """What trackers are given, in the order of the updates; pictures come last."""
    known = [*metrics.points(folder / "metrics.jsonl"), *samples.points(folder)]
    return sorted(known, key=lambda point: point[0])


def _export_best(
    config: TrainConfig,
    model: LatentDiffusion,
    stored: list[Checkpoint],
    accelerator: Accelerator,
    heldout: Heldout | None,
) -> None:
    """Export the best checkpoint's weights, and print which one it is and, outside a retraining, what to type next."""
    best = checkpoint.best_of(stored)
    items, base = heldout.val if heldout else None, partial(base_values, config, model)
    # Scales are measured as held-out losses are, in mixed precision by accelerate's forward; exports are compared in fp32.
    choice = sweep.choose(config, model, best, items, base)
    vars(model.unet).pop("forward", None)
    best = replace(best, scale=choice.scale)
    if config.method.held() != "fp32":
        # in fp32 there may be no room for it and for what is loaded again
        model.move(torch.device("cpu"))
        frozen.release(model.unet, lambda: load_pipeline(config.model).unet)
    copy_into(config.method.trained(model), values_of(config, model, best))
    folder = config.folder / "export"
    name = config.run.folder.name
    word = trigger_of(config)
    to_set = to_set_of(config)
    difference = export(config.method, config.model, model, folder, best, name, word, to_set)
    accelerator.print(f"best    {overview.after(config.folder, stored)}")
    if choice.scale != 1 or choice.table:
        accelerator.print(f"scale   {scale.line(choice)}")
    accelerator.print(described(config.method, folder, difference, to_set))
    if not is_of_retraining(config.run.folder):
        accelerator.print(f"next    python -m evaluate {next_arguments(config.run.folder)}")
