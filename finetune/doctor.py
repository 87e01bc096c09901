"""Cheap checks before training: held-out pairs that are trained on, a run started with other settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.decide.config import HELD_OUT
from curate.run import devices, joined, tracking
from curate.run.files import read_json
from curate.run.folder import curate_dir_of
from curate.run.manifest import Manifest, read_manifest
from curate.run.provenance import curate_command
from curate.run.removals import read_removals
from curate.run.schema import UserError
from finetune import (
    companions,
    enlarged,
    enough,
    equal_crops,
    leaks,
    optimizers,
    seen_before,
    start,
    tags,
)
from finetune.config import CHANGEABLE, ObjectiveConfig, OptimConfig, TrainConfig
from finetune.config.pictures import BucketsConfig, CacheConfig
from finetune.config.retention import RegulariseConfig, ReplayConfig
from finetune.models import refuse_unsupported, refuse_zero_terminal_snr
from finetune.models.config import CHUNK
from finetune.retention import prompts
from finetune.sidecars import identifiers

# What may differ when a run is resumed, since it does not change the losses.
_FREE = {
    "model.config",  # the weights and what they compute decide
    "method.original_layout",
    "optim.gradient_accumulation",
    "optim.gradient_checkpointing",
    "optim.mixed_precision",
    "train.compile",
    "heldout.every",
    "heldout.batch_size",
    "heldout.patience",
    "buckets.enlarge",
}
_GROUPS = ("model", "method", "optim", "train", "objective", "ema", "heldout")
_GROUPS += ("buckets", "cache", "replay", "regularise")
_VIEWS = {"data.flip": False, "data.crops": 1}
_FORMERLY = {
    f"{group}.{name}": value
    for group, settings in (
        ("objective", ObjectiveConfig()),
        ("optim", OptimConfig()),
        ("buckets", BucketsConfig()),
        ("cache", CacheConfig()),
        ("replay", ReplayConfig()),
        ("regularise", RegulariseConfig()),
    )
    for name, value in asdict(settings).items()
}
_FORMERLY |= _VIEWS
_FORMERLY |= {
    "cache.captions": "hidden",
    "method.base_weights": "fp32",
    "method.text_encoder": False,
    "model.clip_skip": 1,
    "model.caption_tokens": CHUNK,
    "model.beta_schedule": None,
    "model.beta_start": None,
    "model.beta_end": None,
    "train.shuffle_caption": False,
    "train.keep_tokens": 0,
    "train.caption_tag_dropout": 0.0,
    "train.tag_variants": 8,
}
"""Values of keys that trainings of earlier versions did not note."""
ORDER = "hashed keys, noise by sample"
"""Of the samples and their noise, see ``cache.load_split`` and ``data.Batches``; earlier versions noted another or none."""
_ORIGINS = {
    "shards": "curated data",
    "weights": "weights of the base model",
    "init": "weights to start with (method.init)",
}


def examine(config: TrainConfig, manifest: Manifest) -> None:
    """Check the configuration against the data and the run's folder, before any model is loaded.

    Raises:
        UserError: the model is not there or not supported, there is nothing to train on or to hold out, or so
            little that nothing could be judged, a held-out picture is also trained on, the export to start with does
            not fit, or the run was started with other settings.
    """
    _refuse_model(config)
    for of_prompts in (prompts.replayed, prompts.for_scales):
        of_prompts(config)
    start.examine(config)
    where = " and ".join(map(str, config.curations))
    if not manifest.shards_of("train"):
        retry = curate_command(config.curations[0].parent)
        raise UserError(f"{where} has no pairs to train on; type: {retry}")
    if config.heldout.items and not manifest.shards_of("val"):
        raise UserError(
            f"{where} has {manifest.totals['kept']} pairs, none of them held out; "
            "curate again with more pictures or a larger split.val, such as 0.3, or type heldout.items=0 to "
            "train without a held-out loss"
        )
    for curate_dir in config.curations:  # across them, joining refuses it
        refuse_leaks(curate_dir, read_manifest(curate_dir) if config.data.runs else manifest)
    for line in companions.examine(config, manifest):
        start.say(line)
    seen = seen_before.examine(config, manifest)
    leaks.examine(config)
    tags.examine(config, manifest)
    enlarged.examine(config, manifest)
    equal_crops.examine(config, manifest)
    last = read_json(config.folder / "checkpoints" / "last" / "state.json")
    if last is None:
        enough.examine(config, manifest, seen)
    else:  # a damaged one is made again
        refuse_to_resume(config, last, identity(config, manifest))


def examine_settings(config: TrainConfig) -> None:
    """Check what can be known from the settings alone, before there is anything to train on.

    Raises:
        UserError: the model is not there or not supported, or the precision or a tracker is not to be had here.
    """
    _refuse_model(config)
    companions.examine_settings(config)
    config.buckets.sides(config.model.resolution)  # refuses what makes none
    refuse_precision(config.optim)
    refuse_sharding()
    optimizers.refuse_absent(config.optim)
    tracking.refuse_absent(config.tracker)


def _refuse_model(config: TrainConfig) -> None:
    refuse_unsupported(config.model)
    if config.objective.zero_terminal_snr:
        refuse_zero_terminal_snr(config.model)


def refuse_precision(optim: OptimConfig) -> None:
    """Refuse a precision that only GPUs compute in, where there is certainly none.

    Raises:
        UserError: says which to type.
    """
    if optim.mixed_precision == "fp16" and devices.has_no_gpu():
        raise UserError(
            "optim.mixed_precision=fp16 needs a GPU; type optim.mixed_precision=bf16 or no"
        )


def refuse_sharding() -> None:
    """Refuse a launch that cuts the weights into pieces, a process each.

    Every forward pass would be a collective one then, and here processes make different ones: each measures its share
    of the held-out pictures, and the first alone draws. On processors accelerate would leave the weights whole without
    a word.

    Raises:
        UserError: says what to type.
    """
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("true", "1"):
            raise UserError(
                f"accelerate launch asks for {name}, which is not supported: each process has to hold all weights. "
                "Type accelerate launch --config_file conf/accelerate/ddp.yaml; for less memory, "
                "optim.gradient_checkpointing=true, optim=adamw8bit, or method=lora method.base_weights=bf16"
            )


def refuse_leaks(curate_dir: Path, manifest: Manifest) -> None:
    """Refuse data in which a held-out picture, or a copy of it, is also trained on: it hides overfitting.

    Raises:
        UserError: names what a held-out and a training sample share.
    """
    train = identifiers(curate_dir, manifest, "train")
    for side in HELD_OUT:
        held_out = identifiers(curate_dir, manifest, side)
        for column in train.keys() & held_out.keys():
            if shared := sorted(train[column] & held_out[column]):
                raise UserError(
                    f"{len(shared)} of the {side} samples are also trained on: {column} {shared[0]} is "
                    f"on both sides. Curate {curate_dir.parent.name} again under another run.name"
                )


def identity(config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """Everything that decides a run's losses, by dotted key; ``shards`` stands for the data."""
    known = {
        f"{group}.{name}": value
        for group in _GROUPS
        for name, value in asdict(getattr(config, group)).items()
        if f"{group}.{name}" not in _FREE
    }
    if not config.method.text_encoder:  # what is read only then
        for name in ("method.text_encoder_targets", "optim.text_encoder_lr"):
            known.pop(name, None)
    known["cache.captions"] = config.captions  # auto stands for one of the others
    if config.optim.schedule == "constant":  # then training longer leaves the first part as it was
        del known["train.samples"]
    known["shards"] = manifest.digest()
    known["order"] = ORDER
    del known["method.init"]  # the weights decide, wherever they are
    known["init"] = start.digest(config)
    known |= {key: getattr(config.data, key.removeprefix("data.")) for key in _VIEWS}
    known["data.runs"] = dict(sorted(config.data.runs.items())) or None  # weights of the curations
    shown = prompts.replayed(config)  # which count, wherever they are
    known["replay.pictures"] = len(shown) or None
    known["replay.prompts"] = prompts.digest(shown) if shown else None
    return known


def refuse_to_resume(config: TrainConfig, last: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint of other settings, but for what ``resume.allow`` names.

    Of a training that has ended the order is free, and nothing is changed any more.

    Args:
        config: of the training.
        last: what the last checkpoint's ``state.json`` holds.
        now: the present identity, or as much of it as is known already.

    Raises:
        UserError: as :func:`refuse_change`.
    """
    has_ended = last["step"] >= config.steps or last["stopped"] is not None
    free = ["order"] if has_ended else config.resume.allow
    now = {key: value for key, value in now.items() if key not in free}
    refuse_change(config.folder, last["identity"], now, config.resume.allow)


def changed(config: TrainConfig, last: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings that were changed on purpose since a training began, and after how many samples.

    Args:
        config: of the training.
        last: what the last checkpoint's ``state.json`` holds.
        now: the present identity.
    """
    before = {**_FORMERLY, **last["identity"]}
    found = [
        {
            "samples_seen": last["samples_seen"],
            "key": key,
            "from": before.get(key),
            "to": now.get(key),
        }
        for key in sorted(config.resume.allow)
        if before.get(key) != now.get(key)
    ]
    return [*last.get("changes", []), *found]


def refuse_change(
    folder: Path, stored: dict[str, Any], now: dict[str, Any], allowed: Sequence[str] = ()
) -> None:
    """Refuse to resume or judge a run with other settings, data or weights than it was started with.

    Args:
        folder: of the run, for the message.
        stored: the identity in the last checkpoint.
        now: the present one, or as much of it as is known already.
        allowed: what ``resume.allow`` names already.

    Raises:
        UserError: names the first key that differs.
    """
    stored = {**_FORMERLY, **stored}
    for key in now:
        if stored.get(key) == now[key]:
            continue
        difference = f"with {key}={stored.get(key)}, not {now[key]}"
        if key in _ORIGINS:
            then, today = (each.get(key) or "the base's own" for each in (stored, now))
            digests = f"digest {then:.12}, now {today:.12}"
            difference = f"from other {_ORIGINS[key]} ({digests})"
        data = curate_dir_of(folder.parent)
        these = joined.option(data)
        remedy = "Restore it, or train under another run.name"
        if key in CHANGEABLE:
            others = [k for k in CHANGEABLE if k in now and stored.get(k) != now[k]]
            if key in allowed:
                raise UserError(
                    f"{folder} was started {difference}, and has ended, so that nothing of it is changed any more. To "
                    "train on with another value, type a larger train.samples as well"
                )
            allow = ",".join(sorted({*others, *allowed}))
            remedy = (
                f"Restore it, train under another run.name, or, to train on with {now[key]} from here, type "
                f"'resume.allow=[{allow}]'. A training that has ended is not changed"
            )
        if key == "shards":
            remedy = (
                "To restore that, curate again with the settings and the input of then and run.replace=true; "
                f"to train on what is there now, type run.name=NEW {these}"
            )
            if any(read_removals(each).records for each in joined.curations_of(data)):
                remedy = (
                    "Pictures were taken out of the shards for good (python -m curate.remove), so that what was "
                    f"trained with them can neither go on nor be judged; type run.name=NEW {these}"
                )
        if key == "init" and now[key] is None:
            difference = "with weights that method.init named, and it is not typed now"
            remedy = "Type it as before, or train under another run.name"
        if key == "order":
            difference = "by a version that took the samples in another order or drew other noise, so that this one cannot go on"
            remedy = f"To train from the start, type run.name=NEW {these}"
        raise UserError(f"{folder} was started {difference}. {remedy}")
