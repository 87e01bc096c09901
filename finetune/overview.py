"""What a training is about to do and what came of it, in words for the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from curate.run.intervals import changes
from finetune import checkpoint, forecast, start
from finetune.bucket_plan import BucketPlan
from finetune.buckets import shown
from finetune.checkpoint import Checkpoint
from finetune.config import ObjectiveConfig, TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import WeightedPlan
from finetune.loop import rates
from finetune.methods.interface import UNET, Method
from finetune.retention.replay import ReplayBatches
from finetune.rules import FEWEST_TO_STOP
from finetune.tags import TagVariants, shares
from finetune.training import Training

_MOST_SHOWN = 12  # buckets
_LOOKED_AT = 100  # batches
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def before(run: Training, held_out: int) -> str:
    """Pictures, length, weights, batch, device and memory, in a line each.

    Args:
        run: put together and not started.
        held_out: pictures in the split ``val``.
    """
    config, pictures = run.config, len(run.batches.split)
    samples = config.steps * config.optim.batch_size
    of_data = samples - config.steps * run.batches.replayed
    lines = {
        "train": f"{pictures:,} pictures; {_held_out(run, held_out)}",
        "length": f"{samples:,} samples = {of_data / pictures:.3g} passes = {_updates(config)}",
        "weights": _weights(run),
        **_curations(run),
        **_buckets(run),
        **_views(run),
        **_start(run),
        **_tags(run),
        **_objective(run),
        **_optimizer(run),
        **_retention(run),
        "batch": _batch(run),
        "device": f"{_device(run)}, {_precision(run)}",
        "memory": _memory(run),
        **_changes(run),
    }
    return labelled(lines)


def labelled(lines: Mapping[str, str]) -> str:
    """A line each, behind its name."""
    return "\n".join(f"{name:<8}{text}" for name, text in lines.items())


def _held_out(run: Training, held_out: int) -> str:
    if run.heldout is None:
        return "no held-out loss (heldout.items=0)"
    share = forecast.heldout_share(run.config, len(run.heldout.val) + len(run.heldout.train_probe))
    return (
        f"held out {held_out:,}, of which {len(run.heldout.val):,} are measured while training; that takes "
        f"{100 * share:,.1f} % of what training takes"
    )


def _updates(config: TrainConfig) -> str:
    """How many, and that they are whole batches, where that makes the training longer than was typed."""
    asked, samples = config.train.samples, config.steps * config.optim.batch_size
    text = f"{config.steps:,} update{'s' if config.steps > 1 else ''}"
    return text if samples == asked else f"{text} (train.samples={asked} to whole batches)"


def _weights(run: Training) -> str:
    """How many numbers are trained, and their share of each network with what the method added to it."""
    said = []
    for part, network in run.config.method.networks(run.model).items():
        trained = sum(weight.numel() for weight in run.config.method.trainable(network).values())
        total = sum(weight.numel() for weight in network.parameters())
        whose = "the U-Net's" if part == UNET else f"{part}'s"
        said.append(f"{trained:,} trained, {100 * trained / total:.3g} % of {whose} {total:,}")
    return "; ".join(said) + _strength(run.config.method) + _rates(run)


def _strength(method: Method) -> str:
    """What an adapter's update is multiplied by, where that is not 1: one of rank and alpha was typed alone, perhaps."""
    rank, alpha = getattr(method, "rank", None), getattr(method, "alpha", None)
    if not rank or not alpha or rank == alpha:
        return ""
    return f"; alpha {alpha:g} over rank {rank} multiplies the update by {alpha / rank:g}"


def _rates(run: Training) -> str:
    """Those of U-Net and text encoders, where both are trained."""
    found = rates(run.config, run.config.optim.warmup)
    return f"; lr {found[0]:g} and {found[1]:g}" if len(found) > 1 else ""


def _curations(run: Training) -> dict[str, str]:
    """The share that each curation has of the samples, where there are several."""
    config, plan = run.config, run.batches.plan
    if isinstance(plan, BucketPlan):
        plan = plan.mixture
    if not config.data.runs or not isinstance(plan, WeightedPlan):
        return {}
    shown = [
        f"{name} {share:.3g} % ({len(plan.sources[name]):,} pictures × {run.config.data.runs[name]:g})"
        for name, share in ((name, 100 * share) for name, share in plan.shares.items())
    ]
    return {"data": f"samples of {', '.join(shown)}"}


def _buckets(run: Training) -> dict[str, str]:
    """The share of the pictures in each bucket, and those of which there are too few for a batch."""
    plan = run.batches.plan
    if not isinstance(plan, BucketPlan):
        return {}
    factor, pictures = run.model.pixels_per_latent, len(run.batches.split)
    counts = Counter(run.batches.split.shapes())
    said = [
        f"{shown((height * factor, width * factor))} {count / pictures:.1%}"
        for (_, height, width), count in counts.most_common()
    ]
    text = (
        f"{', '.join(said[:_MOST_SHOWN])}{', ...' * (len(said) > _MOST_SHOWN)}; {len(said)} in all"
    )
    size = run.config.optim.batch_size
    if few := [count for count in counts.values() if count < size]:
        text += (
            f"; {len(few)} of them with {sum(few):,} pictures have fewer than a batch ({size}), which then holds the same "
            "picture more than once: a larger buckets.step makes fewer buckets"
        )
    return {"buckets": text}


def _views(run: Training) -> dict[str, str]:
    """How many views there are of a picture, and captions that a mirrored one contradicts."""
    data, split = run.config.data, run.batches.split
    if split.views == 1:
        return {}
    text = f"{split.views} of each picture, one by chance at each visit: {data.crops} crops"
    if data.crops > 1:
        alike = split.same_view(0, split.views - 1 - data.flip).mean()
        text += f" ({alike:.1%} of the pictures have the shape of what is cut out, so that theirs are all the same)"
    if data.flip:
        sides = sum(bool(_SIDE.search(caption)) for caption in split.captions) / len(split)
        text += f", as they are and mirrored; {sides:.1%} of the captions say left or right"
    return {"views": text}


def _start(run: Training) -> dict[str, str]:
    """What training starts with, where that is not the base."""
    found = start.origin_of(run.folder)
    if found is None:
        return {}
    text = f"{found['folder']}, sha256 {found['sha256']:.12}; compared with the base"
    export = run.config.export
    if not export.chosen and export.scale < 1:
        text += (
            f"; export.scale={export.scale:g} exports that share of all that differs from the base, and so of this start as "
            "well, and again with each training that starts with the one before"
        )
    return {"start": text}


def _tags(run: Training) -> dict[str, str]:
    """How captions are varied, where they are."""
    if (tags := TagVariants.of(run.config)) is None:
        return {}
    order = "in another order" if tags.shuffle else "in their order"
    left_out = f", {tags.dropout:.0%} of them left out" if tags.dropout else ""
    kept = f"the first {tags.keep} kept, the others " if tags.keep else ""
    text = f"{tags.count} variants of each caption: {kept}{order}{left_out}"
    found = shares(run.config, tags)
    several = bool(run.config.data.runs)
    where = [
        f"{share:.1%} of the captions{f' of {name}' * several}" for name, share in found.items()
    ]
    return {"tags": f"{text}; {', '.join(where)} have enough between commas to be varied"}


def _objective(run: Training) -> dict[str, str]:
    """What of ``objective`` is not at its default."""
    default = asdict(ObjectiveConfig())
    said = [
        f"{name}={value}"
        for name, value in asdict(run.config.objective).items()
        if value != default[name]
    ]
    return {"loss": ", ".join(said)} if said else {}


def _retention(run: Training) -> dict[str, str]:
    """What keeps what the base could do, with what it costs."""
    config, lines = run.config, dict[str, str]()
    if isinstance(run.batches, ReplayBatches):
        lines["replay"] = (
            f"{run.batches.replayed} of each batch's {config.optim.batch_size} samples, of "
            f"{len(run.batches.pictures):,} pictures that the base drew"
        )
    held = config.regularise
    said = []
    if held.weight_l2:
        said.append(f"{held.weight_l2:g} × the squared norm of the update is added to the loss")
    if held.teacher:
        said.append(
            f"replayed samples' loss is {held.teacher:g} × the squared difference from the base's prediction, a forward pass "
            "more of each"
        )
    if said:
        lines["retain"] = "; ".join(said)
    if config.export.chosen:
        scales, pictures = config.export.scales, config.export.pictures
        held_out = len(run.heldout.val) if run.heldout else 0
        losses = (1 + len(scales)) * (held_out + pictures) * config.heldout.bins
        losses += held_out * config.heldout.bins if run.start else 0
        lines["scale"] = (
            f"chosen after the training of {len(scales)}: {pictures} pictures drawn, {losses:,} losses"
        )
    return lines


def _optimizer(run: Training) -> dict[str, str]:
    """Which one it is, where that is not AdamW."""
    name = run.config.optim.name
    return {} if name == "adamw" else {"optim": f"{name}, lr {run.config.optim.lr:g}"}


def _changes(run: Training) -> dict[str, str]:
    """What was changed on purpose since the training began."""
    said = [
        f"{each['key']} from {each['from']} to {each['to']} after {each['samples_seen']:,} samples"
        for each in run.progress.changes
    ]
    return {"changed": "; ".join(said)} if said else {}


def _batch(run: Training) -> str:
    optim, processes = run.config.optim, run.accelerator.num_processes
    return (
        f"{optim.batch_size} = {_micro_batch(run)} at a time × {optim.gradient_accumulation} accumulated × "
        f"{processes} process{'es' if processes > 1 else ''}"
    )


def _micro_batch(run: Training) -> int:
    """Samples of which a process computes the loss at a time."""
    optim = run.config.optim
    return optim.batch_size // (optim.gradient_accumulation * run.accelerator.num_processes)


def _device(run: Training) -> str:
    device = run.accelerator.device
    return (
        f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    )


def _memory(run: Training) -> str:
    model, unet = run.model, run.accelerator.unwrap_model(run.unet)
    size, mixed = _micro_batch(run), run.accelerator.mixed_precision
    try:
        return forecast.memory(
            model,
            run.weights,
            forecast.update_bytes(model, unet, run.batches(_largest(run)), size, mixed),
            size,
            optimizer=run.config.optim.name,
            averaged=run.ema is not None,
            copied=run.regulariser.copied_bytes if run.regulariser else 0,
            processes=run.accelerator.num_processes,
        )
    except (RuntimeError, NotImplementedError, AssertionError) as error:  # of what wants contents
        return f"not known, as torch cannot follow this model without computing ({str(error).partition(chr(10))[0]})"


def _largest(run: Training) -> int:
    """An early batch of the pictures with the most pixels."""
    plan, size = run.batches.plan, run.config.optim.batch_size
    if not isinstance(plan, BucketPlan):
        return 0
    shapes = run.batches.split.shapes()
    numbers = range(min(run.config.steps, _LOOKED_AT))
    return max(numbers, key=lambda number: math.prod(shapes[plan(number * size, 1)[0]]))


def _precision(run: Training) -> str:
    mixed, held = run.accelerator.mixed_precision, run.config.method.held()
    computed = "fp32" if mixed == "no" else f"{mixed}, weights fp32"
    return (
        computed
        if held == "fp32"
        else f"{mixed if mixed != 'no' else 'fp32'}, frozen weights {held}"
    )


def after(folder: Path, stored: Sequence[Checkpoint]) -> str:
    """Which checkpoint is best, its change against the base, and why training ended early if it did.

    Args:
        folder: the run's ``finetune`` folder.
        stored: its checkpoints, at least one.
    """
    best = checkpoint.best_of(list(stored))
    stopped = stored[-1].state()["stopped"]
    text = f"{best.path.name} of {stored[-1].path.name} ({best.samples_seen} samples)"
    if best.heldout is not None:
        text += f", held-out loss {_change(folder, best)} against the base model"
        text += "" if best.heldout < 1 else ", which is better than every checkpoint"
        text += _against_start(folder, best)
    return text + (f"; stopped early: {stopped}" if stopped else "")


def _against_start(folder: Path, best: Checkpoint) -> str:
    """How what training started with does, where that is not the base."""
    path = folder / "heldout.npz"
    started = HeldoutCurve.load(path).start_heldout() if path.is_file() else None
    if started is None or best.heldout is None:
        return ""
    which = "better" if best.heldout < started else "no better"
    return f", {which} than what it started with ({changes(started - 1)[0]} %)"


def _change(folder: Path, best: Checkpoint) -> str:
    """In percent, with its 95 % interval where there are pictures enough for one."""
    assert best.heldout is not None
    path = folder / "heldout.npz"
    curve = HeldoutCurve.load(path) if path.is_file() else None
    if curve is None or best.step not in curve.steps or len(set(curve.val_groups)) < FEWEST_TO_STOP:
        return f"{changes(best.heldout - 1)[0]} %"
    row = curve.steps.index(best.step)
    change = curve.evidence(row).change("val", row, 0)
    value, low, high = changes(change.value, change.low, change.high)
    return f"{value} % [{low}, {high}]"
