"""A run that was trained, opened for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from curate.run.finished import to_mend
from curate.run.manifest import read_manifest
from curate.run.next_command import run_arguments
from curate.run.schema import UserError
from finetune import checkpoint, companions, start
from finetune.cache import CACHE, EncodedSplit, encode_shards, load_split, remove_former
from finetune.cache.framing import Framing
from finetune.checkpoint import Checkpoint, list_checkpoints
from finetune.config import RunConfig, TrainConfig, refuse_damaged
from finetune.heldout import HeldoutItems, choose, items_of
from finetune.methods import METHODS
from finetune.models import load_model
from finetune.models.interface import LatentDiffusion
from finetune.retention import scale
from finetune.retention.scale import Choice
from finetune.sidecars import duplicate_groups
from finetune.swapped_unet import SwappedUnet


class FinetuneRun:
    """A finished or unfinished run, opened for evaluation; its results are never changed."""

    def __init__(self, run_dir: Path, config: TrainConfig) -> None:
        self.run_dir = run_dir
        self.config = config
        self.curate_dir = config.curate_dir
        self.finetune_dir = run_dir / "finetune"
        self.export_dir = self.finetune_dir / "export"
        self._models: dict[str, LatentDiffusion] = {}
        self._unets: dict[str, SwappedUnet] = {}

    def model(self, device: torch.device | str = "cpu") -> LatentDiffusion:
        """The base model; loaded once for each device."""
        if str(device) not in self._models:
            config, zero_snr = self.config, self.config.objective.zero_terminal_snr
            self._models[str(device)] = load_model(
                config.model, device, config.captions, zero_terminal_snr=zero_snr
            )
        return self._models[str(device)]

    def checkpoints(self) -> list[Checkpoint]:
        """The earliest first; the base model, step 0, is not among them.

        One that is there only for resuming, since a signal stopped the training, is left out where there are
        others: the next one replaces it.
        """
        return _of_training(self.all_checkpoints())

    def all_checkpoints(self) -> list[Checkpoint]:
        """The same with one that is there only for resuming, at the scale of the run's export.

        Raises:
            UserError: the file that says the scale is damaged.
        """
        choice = self.export_scale()
        of_export = choice.scale if choice else 1.0
        return [replace(stored, scale=of_export) for stored in list_checkpoints(self.finetune_dir)]

    def export_scale(self) -> Choice | None:
        """How that scale was chosen; None where checkpoints are as they were trained.

        Raises:
            UserError: the file that says it is damaged.
        """
        if not (found := _of_training(list_checkpoints(self.finetune_dir))):
            return None
        best = checkpoint.best_of(found)
        return scale.of_run(self.finetune_dir, self.config.export, best)

    def start(self) -> Checkpoint | None:
        """What training started with (``method.init``), as a checkpoint of step 0; None where that was the base.

        Raises:
            UserError: it is not there, or damaged; says what to do.
        """
        found = start.stored(self.finetune_dir)
        if found is None and self.checkpoints()[-1].state()["identity"].get("init"):
            raise UserError(
                f"{self.finetune_dir / start.FOLDER}, what this training started with, is damaged or not there; "
                + to_mend(self.run_dir, "type the training command again, which makes it again")
            )
        return found

    def unfinished(self) -> str:
        """How far a training is that has not ended, such as "step 8 of 40"; "" of one that has."""
        last = list_checkpoints(self.finetune_dir)[-1]
        if last.step >= self.config.steps or last.state()["stopped"] is not None:
            return ""
        return f"step {last.step} of {self.config.steps}"

    def exported(self) -> Checkpoint:
        """The one whose weights the export holds, or will hold if training ends here."""
        return checkpoint.best_of(self.checkpoints())

    def unet_at(
        self,
        stored: Checkpoint | None,
        ema: bool = True,
        device: torch.device | str = "cpu",
    ) -> nn.Module:
        """The base model's U-Net with the weights of a checkpoint, at its scale, or with its own for None.

        It is the same module at every call for a device, so that there is one in memory: a call changes what
        the one before returned. LoRA weights stay an adapter. ``ema`` takes the average, where one was kept.

        Where text encoders are trained, the model's get theirs, too: token ids, as which :meth:`items` come then, are
        encoded by what was asked for last.
        """
        model, place = self.model(device), str(device)
        if place not in self._unets:
            if stored is None:
                return model.unet  # as it was loaded
            model.fingerprint()  # which has to see the base
            config = self.config
            self._unets[place] = SwappedUnet(model, config.model, config.method, config.train.seed)
        return self._unets[place].at(stored, ema)

    def has(self, split: str) -> bool:
        """Whether the curation put any pictures into ``split``; nothing is read but its manifest."""
        return bool(read_manifest(self.curate_dir).shards_of(split))

    def items(self, split: str, count: int, device: torch.device | str = "cpu") -> HeldoutItems:
        """At most ``count`` items of ``split``, which :meth:`has` to exist.

        For the same count they are those that training measured. Pictures that the trainings behind a start have
        seen are not among them, see ``finetune.seen_before``.
        """
        encoded, groups_of = self.encoded(split, device), partial(self.groups_of, split)
        return items_of(encoded, count, groups_of, start.seen(self.finetune_dir))

    def captions(self, split: str, count: int, device: torch.device | str = "cpu") -> list[str]:
        """The first captions of those items, in the same order."""
        encoded = self.encoded(split, device)
        without = start.seen(self.finetune_dir)
        indices = choose(encoded, count, partial(self.groups_of, split), without)
        return [encoded.captions[index] for index in indices.tolist()]

    def groups_of(self, split: str, keys: Sequence[str]) -> list[str]:
        """The duplicate groups of keys in a split."""
        shards = read_manifest(self.curate_dir).shards_of(split)
        return duplicate_groups(self.curate_dir, shards, keys)

    def encoded(
        self, split: str, device: torch.device | str = "cpu", *, squares: bool = False
    ) -> EncodedSplit:
        """All samples of ``split``, which :meth:`has` to exist, mapped from the cache, in the plain view alone.

        Args:
            split: which.
            device: of the encoders.
            squares: as new pictures are drawn, also where the training had aspect buckets.
        """
        cache_dir = self.run_dir.parent / CACHE
        shards = read_manifest(self.curate_dir).shards_of(split)
        model = self.model(device)
        framing = Framing.of(self.config, split)
        framing = replace(framing, buckets=()) if squares else framing
        encode_shards(model, self.curate_dir, shards, cache_dir, framing)
        remove_former(self.finetune_dir / "cache")
        beside = self.config, model, self.curate_dir, shards, cache_dir, framing
        companions.encode(*beside)
        return companions.attach(load_split(model, shards, cache_dir, framing), *beside)


def _of_training(found: list[Checkpoint]) -> list[Checkpoint]:
    """Without one that is there only for resuming, where there are others."""
    return [stored for stored in found if not stored.interrupted] or found


def load_run(run_dir: Path) -> FinetuneRun:
    """Open ``<run.root>/<run.name>`` after training.

    Raises:
        FileNotFoundError: nothing was trained there; says what to type.
        UserError: it was trained by a method that this version does not have, or its configuration is
            damaged.
    """
    path = run_dir / "finetune" / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run_dir} holds no fine-tuning; type: accelerate launch finetune/train.py "
            f"{run_arguments(run_dir)}"
        )
    refuse_damaged(run_dir)
    stored = OmegaConf.load(path)
    assert isinstance(stored, DictConfig), f"{path} is not a mapping"
    stored.pop("provenance")
    if stored.method.name not in METHODS:
        raise UserError(
            f"{path}: method.name={stored.method.name} is not known; accepted: {', '.join(METHODS)}. "
            "Open the run with the version of Darkroom that trained it"
        )
    schema = OmegaConf.structured(TrainConfig)
    schema.method = METHODS[stored.method.name]
    config = OmegaConf.to_object(OmegaConf.merge(schema, stored))
    assert isinstance(config, TrainConfig)
    config.run = RunConfig(str(run_dir.parent), run_dir.name)  # it may have been moved
    return FinetuneRun(run_dir, config)
