"""What base, captions and pictures are like, before the first update: measured once, said, refused, stored."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from accelerate.utils import broadcast_object_list

from curate.run import checksums
from curate.run.joined import curations_of, named_runs
from curate.run.manifest import Manifest
from finetune import base_check, caption_check, companions, forecast, lost_in_encoding
from finetune.base_check import BaseCheck
from finetune.caption_check import CaptionCheck
from finetune.config import TrainConfig
from finetune.evaluating import measure
from finetune.heldout import choose, grid_losses, items_of
from finetune.models.interface import LatentDiffusion
from finetune.sidecars import duplicate_groups
from finetune.tags import TagVariants
from finetune.training import Training


def look_at(
    config: TrainConfig, manifest: Manifest, model: LatentDiffusion, has_started: bool
) -> dict[str, str]:
    """What encoding loses and what the training will take on the disk; the former is measured once and stored."""
    folder, shards = config.folder, manifest.shards_of("train")
    name = lost_in_encoding.FILE
    known = has_started and not checksums.damaged(folder, (name,))
    found = lost_in_encoding.Losses.load(folder / name) if known else None
    if found is None:
        buckets = config.buckets.sides(model.resolution)
        found = lost_in_encoding.measure(model, config.curate_dir, shards, buckets)
        with checksums.updated(folder, (name,)):
            found.save(folder / name)
    lines = lost_in_encoding.lines(found, model.resolution, config.buckets.enabled)
    if has_started:
        return lines
    pictures = sum(shard.samples for split in sides(config) for shard in manifest.shards_of(split))
    captions = round(found.all_captions * pictures / found.pictures)
    if varied := TagVariants.of(config):
        captions += varied.count * found.all_captions
    views = config.data.crops * (1 + config.data.flip)
    latents = pictures + round(found.pictures * (views * config.cache.size - 1))
    beside = companions.cached_bytes(config, model, manifest, sides(config))
    return lines | {"disk": forecast.disk(config, model, latents, captions, beside)}


def sides(config: TrainConfig) -> list[str]:
    """The splits that are encoded."""
    return ["train", "val"] if config.heldout.items else ["train"]


def check(run: Training, manifest: Manifest, has_started: bool) -> None:
    """Look whether base and captions fit the pictures, before the first update; what was stored of it may be damaged.

    Raises:
        UserError: they do not, and the training has not started; on all processes.
    """
    for name, look in ((base_check.FILE, _check_base), (caption_check.FILE, _check_captions)):
        if not has_started or checksums.damaged(run.folder, (name,)):
            look(run, manifest, refuses=not has_started)


def _check_base(run: Training, manifest: Manifest, *, refuses: bool) -> None:
    """Compare the base with predicting nothing, on the pictures of the held-out loss, say what was found, and store it.

    Their losses are kept for the first evaluation. Without a held-out loss some training pictures are measured.

    Raises:
        UserError: see :func:`base_check.judge`; on all processes.
    """
    config, heldout, main = run.config, run.heldout, run.accelerator.is_main_process
    reaction = config.doctor.base
    if reaction == "off":
        if main:
            _store(run.folder, base_check.FILE, None)
        return
    model, size = run.model, config.heldout.at_once(run.model.resolution)
    unet = run.accelerator.unwrap_model(run.unet)
    if heldout:
        items, grid = heldout.val, heldout.grid
        losses = heldout.base = measure(run, items)
    else:
        groups_of = partial(duplicate_groups, config.curate_dir, manifest.shards_of("train"))
        items, grid = (
            items_of(run.batches.split, base_check.PICTURES, groups_of),
            base_check.GRID,
        )
        losses = grid_losses(model, unet, items, grid, size)
    found = base_check.compare(model.schedule, items, grid, losses)
    reading = base_check.reread(model, unet, items, size, found) if found.worse else None
    reaction = reaction if refuses else "warn"
    name, which = named_runs(curations_of(config.curate_dir))
    look = f"python -m curate.explain {name} {{keys}}{which}"
    run.accelerator.print(base_check.judge(found, reading, reaction, config.model, look))
    if main:
        _store(run.folder, base_check.FILE, found)


def _check_captions(run: Training, manifest: Manifest, *, refuses: bool) -> None:
    """Compare the training pictures' captions with others', say what was found, and store it.

    Raises:
        UserError: see :func:`caption_check.judge`; on all processes.
    """
    config, accelerator, model, split = run.config, run.accelerator, run.model, run.batches.split
    reaction = config.doctor.captions
    if reaction == "off":
        if accelerator.is_main_process:
            _store(config.folder, caption_check.FILE, None)
        return
    found: list[CaptionCheck | None] = [None]
    if accelerator.is_main_process:
        groups_of = partial(duplicate_groups, config.curate_dir, manifest.shards_of("train"))
        chosen = choose(split, caption_check.PICTURES, groups_of)
        items = items_of(split, len(chosen), groups_of)
        captions = [split.captions[place] for place in chosen.tolist()]
        size = config.heldout.at_once(model.resolution)
        with accelerator.autocast():  # as held-out losses are measured, in as much memory
            found = [caption_check.measure(model, model.unet, items, captions, size)]
    broadcast_object_list(found)
    reaction = reaction if refuses else "warn"
    accelerator.print(caption_check.judge(found[0], reaction, config.curate_dir))
    if accelerator.is_main_process:
        _store(config.folder, caption_check.FILE, found[0])


def _store(folder: Path, name: str, found: BaseCheck | CaptionCheck | None) -> None:
    """Write what was found; where nothing was, that of an earlier start, perhaps on other data, goes."""
    path = folder / name
    if found is None and not path.exists():
        return
    with checksums.updated(folder, (path.name,)):
        if found is None:
            path.unlink()
        else:
            found.save(path)
