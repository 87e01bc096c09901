"""Put a training together: encoded pictures and captions, batches, networks, optimizer, and what is held out."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from curate.run.companions import CONTROL
from curate.run.manifest import Manifest
from finetune import (
    checks,
    companions,
    compiled,
    frozen,
    joined,
    optimizers,
    start,
)
from finetune.bucket_plan import BucketPlan
from finetune.cache import CACHE, EncodedSplit, encode_shards, load_split, remove_former
from finetune.cache.framing import Framing
from finetune.config import TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import Batches, WeightedPlan
from finetune.ema import Ema
from finetune.heldout import HeldoutGrid, HeldoutItems, items_of
from finetune.methods.interface import UNET
from finetune.models.denoiser import Denoiser, checkpoint_text_encoder
from finetune.models.interface import LatentDiffusion
from finetune.objective import loss_weights
from finetune.retention import prompts
from finetune.retention.base_pictures import BasePictures, pictures_of
from finetune.retention.regularise import Regulariser
from finetune.retention.replay import ReplayBatches
from finetune.samples import Samples
from finetune.sidecars import duplicate_groups
from finetune.tags import TagVariants
from finetune.training import Heldout, Training, Window


def encode(
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


def assemble(
    config: TrainConfig,
    manifest: Manifest,
    identity: dict[str, Any],
    accelerator: Accelerator,
    model: LatentDiffusion,
    splits: list[EncodedSplit],
) -> Training:
    """Everything that the loop needs, not resumed yet; what is distributed is prepared by accelerate.

    Args:
        config, manifest, identity: of the training.
        accelerator: of this process.
        model: prepared by the method.
        splits: what :func:`encode` returned.
    """
    pictures = _replayed(config, accelerator, model)
    _checkpoint_activations(config, model)
    weights, unets = config.method.trained(model), config.method.trainable(model.unet)
    texts = [weight for name, weight in weights.items() if name not in unets]
    network = Denoiser(model) if config.method.text_encoder else model.unet
    frozen.keep_unsent(network)
    regulariser = _regulariser(config, model)
    unet, optimizer = accelerator.prepare(
        network, optimizers.make(config.optim, unets.values(), texts)
    )
    if config.train.compile:
        compiled.prepare(model.unet)
    heldout = _heldout(config, manifest, *splits) if config.heldout.items else None
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
        batches=_batches(config, manifest, accelerator, model, splits[0], pictures),
        loss_weights=loss_weights(
            model.schedule, config.objective.weighting, config.objective.snr_gamma
        ),
        regulariser=regulariser,
        heldout=heldout,
        samples=_samples(config, model, heldout, splits[1] if heldout else None),
        start=start.stored(config.folder),
        window=Window(torch.zeros((), device=accelerator.device)),
    )


def _checkpoint_activations(config: TrainConfig, model: LatentDiffusion) -> None:
    """Let what is trained compute its activations again in the backward pass, if that is asked for."""
    if not config.optim.gradient_checkpointing:
        return
    model.unet.enable_gradient_checkpointing()
    for part, encoder in config.method.networks(model).items():
        if part != UNET:
            checkpoint_text_encoder(encoder)


def _regulariser(config: TrainConfig, model: LatentDiffusion) -> Regulariser | None:
    """What holds on to the base; None where nothing does."""
    chosen = config.regularise
    if not chosen.weight_l2 and not chosen.teacher:
        return None
    return Regulariser(model, config.method, chosen.weight_l2, chosen.teacher)


def _batches(
    config: TrainConfig,
    manifest: Manifest,
    accelerator: Accelerator,
    model: LatentDiffusion,
    split: EncodedSplit,
    pictures: BasePictures | None,
) -> Batches:
    """This process's share of all batches, with replayed ``pictures`` among them."""
    size, kind = config.optim.batch_size, Batches
    if pictures:
        kind = partial(ReplayBatches, pictures=pictures, replayed=config.replay.samples(size))
    return kind(
        split,
        batch_size=size,
        caption_dropout=config.train.caption_dropout,
        timesteps=len(model.schedule),
        seed=config.train.seed,
        objective=config.objective,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        plan=_plan(config, manifest, split),
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


def _samples(
    config: TrainConfig, model: LatentDiffusion, heldout: Heldout | None, split: EncodedSplit | None
) -> Samples:
    """What is drawn while training: the first held-out captions, and what a ControlNet draws them from."""
    if heldout is None or split is None:
        return Samples(config.folder, model, config.samples, ())
    captions = dict(zip(split.keys, split.captions, strict=True))
    shown = [captions[key] for key in heldout.val.keys[: config.samples.captions]]
    controls = heldout.val.conditioning.tensors.get(CONTROL)
    return Samples(config.folder, model, config.samples, shown, controls)
