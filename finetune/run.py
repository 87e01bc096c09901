"""Run one training: encode, resume, train, export the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from curate.run import checksums, tracking
from curate.run.companions import CONTROL
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
    companions,
    compiled,
    doctor,
    frozen,
    joined,
    lost_in_encoding,
    metrics,
    optimizers,
    overview,
    samples,
    seen_before,
    start,
    trained_on,
)
from finetune.bucket_plan import BucketPlan
from finetune.cache import CACHE, EncodedSplit, encode_shards, load_split, remove_former
from finetune.cache.framing import Framing
from finetune.checkpoint import Checkpoint, list_checkpoints
from finetune.config import TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import Batches, WeightedPlan
from finetune.ema import Ema, copy_into
from finetune.export import (
    base_values,
    described,
    export,
    holds,
    to_set_of,
    trigger_of,
    values_of,
)
from finetune.heldout import HeldoutGrid, HeldoutItems, items_of
from finetune.loop import Heldout, Progress, Training, Window, fit, measure, precision_of
from finetune.methods import prepare_model
from finetune.methods.interface import UNET
from finetune.models import load_model, load_pipeline
from finetune.models.denoiser import Denoiser, checkpoint_text_encoder
from finetune.models.interface import LatentDiffusion
from finetune.npz import DamagedArrays
from finetune.objective import loss_weights
from finetune.retention import prompts, scale, sweep
from finetune.retention.base_pictures import BasePictures, pictures_of
from finetune.retention.regularise import Regulariser
from finetune.retention.replay import ReplayBatches
from finetune.samples import Samples
from finetune.sidecars import duplicate_groups
from finetune.tags import TagVariants

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
    splits = _encode(config, manifest, accelerator, model)
    run = _assemble(config, manifest, identity, accelerator, model, splits)
    if config.heldout.items:
        run.heldout = _heldout(config, manifest, *splits)
        run.samples = _samples(run, run.heldout.val, splits[1])
    checks.check(run, manifest, bool(stored))
    if accelerator.is_main_process:
        with checksums.updated(folder, ("config.yaml", trained_on.FILE)):
            write_config(folder / "config.yaml", config)
            trained_on.write(folder, config.curate_dir, manifest, identity["shards"])
    _resume(run, stored)
    model.park()
    accelerator.print(overview.before(run, len(splits[1]) if run.heldout else 0))
    with _tracked(run):
        fit(run)
    if accelerator.is_main_process:
        with checksums.updated(folder, ("export/",)):
            _export_best(config, model, list_checkpoints(folder), accelerator, run.heldout)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _samples(run: Training, val: HeldoutItems, split: EncodedSplit) -> Samples:
    """What is drawn while training: the first held-out captions, and what a ControlNet draws them from."""
    config, captions = run.config, dict(zip(split.keys, split.captions, strict=True))
    shown = [captions[key] for key in val.keys[: config.samples.captions]]
    controls = val.conditioning.tensors.get(CONTROL)
    return Samples(config.folder, run.model, config.samples, shown, controls)


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


def _encode(
    config: TrainConfig, manifest: Manifest, accelerator: Accelerator, model: LatentDiffusion
) -> list[EncodedSplit]:
    """The splits ``train`` and, if there is a held-out loss, ``val``; each process encodes its share."""
    needed = checks.sides(config)
    cache_dir, tags = Path(config.run.root, CACHE), TagVariants.of(config)
    framings = {split: Framing.of(config, split, all_views=True) for split in needed}
    for framing, splits in groupby(needed, key=framings.__getitem__):
        shards = [shard for split in splits for shard in manifest.shards_of(split)]
        mine = shards[accelerator.process_index :: accelerator.num_processes]
        data, main = (config.curate_dir, mine, cache_dir, framing), accelerator.is_main_process
        encode_shards(model, *data, progress=main, tags=tags)
        companions.encode(config, model, *data, progress=main)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove_former(config.folder / "cache")

    def load(side: str, framing: Framing) -> EncodedSplit:
        own, varied = manifest.shards_of(side), tags if side == "train" else None
        split = load_split(model, own, cache_dir, framing, tags=varied)
        return companions.attach(split, config, model, config.curate_dir, own, cache_dir, framing)

    return [load(side, framing) for side, framing in framings.items()]


def _replayed(
    config: TrainConfig, accelerator: Accelerator, model: LatentDiffusion
) -> BasePictures | None:
    """The pictures of the base that are replayed; ``model``'s U-Net is not trained yet.

    The first process draws them, those that are not stored; then the others read them.
    """
    wanted = prompts.replayed(config)
    if not wanted:
        return None
    with accelerator.main_process_first():
        held = config.method.held()
        return pictures_of(config.folder, "replay", model, lambda: model.unet, wanted, held)


def _assemble(
    config: TrainConfig,
    manifest: Manifest,
    identity: dict[str, Any],
    accelerator: Accelerator,
    model: LatentDiffusion,
    splits: list[EncodedSplit],
) -> Training:
    pictures = _replayed(config, accelerator, model)
    if config.optim.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
        for part, encoder in config.method.networks(model).items():
            if part != UNET:
                checkpoint_text_encoder(encoder)
    weights, unets = config.method.trained(model), config.method.trainable(model.unet)
    texts = [weight for name, weight in weights.items() if name not in unets]
    network = Denoiser(model) if config.method.text_encoder else model.unet
    frozen.keep_unsent(network)
    held, regulariser = config.regularise, None
    if held.weight_l2 or held.teacher:
        regulariser = Regulariser(model, config.method, held.weight_l2, held.teacher)
    unet, optimizer = accelerator.prepare(
        network, optimizers.make(config.optim, unets.values(), texts)
    )
    if config.train.compile:
        compiled.prepare(model.unet)
    replay = (
        {"pictures": pictures, "replayed": config.replay.samples(config.optim.batch_size)}
        if pictures
        else {}
    )
    batches = (ReplayBatches if pictures else Batches)(
        splits[0],
        **replay,
        batch_size=config.optim.batch_size,
        caption_dropout=config.train.caption_dropout,
        timesteps=len(model.schedule),
        seed=config.train.seed,
        objective=config.objective,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        plan=_plan(config, manifest, splits[0]),
    )
    return Training(
        config=config,
        folder=config.folder,
        identity=identity,
        accelerator=accelerator,
        model=model,
        unet=unet,
        weights=weights,
        optimizer=optimizer,
        ema=Ema(weights, config.ema.decay) if config.ema.decay else None,
        batches=batches,
        loss_weights=loss_weights(
            model.schedule, config.objective.weighting, config.objective.snr_gamma
        ),
        regulariser=regulariser,
        heldout=None,
        samples=Samples(config.folder, model, config.samples, ()),
        start=start.stored(config.folder),
        window=Window(torch.zeros((), device=accelerator.device)),
    )


def _plan(
    config: TrainConfig, manifest: Manifest, split: EncodedSplit
) -> WeightedPlan | BucketPlan | None:
    """The order of samples of several curations or in buckets; None where there is one of each."""
    sources, seed = joined.sources(config, manifest, split.keys), config.train.seed
    if config.buckets.enabled:
        size, weights = config.optim.batch_size, config.data.runs if sources else None
        return BucketPlan.of(seed, split.shapes(), size, sources, weights)
    return WeightedPlan(seed, sources, config.data.runs) if sources else None


def _heldout(
    config: TrainConfig, manifest: Manifest, train_split: EncodedSplit, val_split: EncodedSplit
) -> Heldout:
    settings = config.heldout

    def items(split: EncodedSplit, name: str, count: int) -> HeldoutItems:
        shards = manifest.shards_of(name)
        groups_of = partial(duplicate_groups, config.curate_dir, shards)
        return items_of(split, count, groups_of, start.seen(config.folder))

    val = items(val_split, "val", settings.items)
    train_probe = items(train_split, "train", len(val))
    grid = HeldoutGrid(settings.bins, settings.draws, settings.seed)
    return Heldout(val, train_probe, grid, HeldoutCurve.of(val, train_probe))


def _resume(run: Training, stored: list[Checkpoint]) -> None:
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
        run.window = _restored(state["interrupted"], run.accelerator)
    if run.accelerator.scaler and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.accelerator.wait_for_everyone()  # all have read heldout.npz before it is written again
    if main:
        _cut(run, last.step)
        if run.heldout:
            with checksums.updated(run.folder, ("heldout.npz",)):
                run.heldout.curve.save(run.folder / "heldout.npz")
    run.accelerator.print(f"resuming after {last.samples_seen} samples, at {last.path}")


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


def _cut(run: Training, step: int) -> None:
    """Cut what training writes as it goes back to an update."""
    with checksums.updated(run.folder, ("metrics.jsonl",)):
        run.samples.cut(step)
        metrics.truncate(run.folder / "metrics.jsonl", step)


def _restored(unlogged: dict[str, Any], accelerator: Accelerator) -> Window:
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
