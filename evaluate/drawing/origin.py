"""Where the weights that are drawn with come from: the checkpoints of a run, or a base model alone."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import nn

from curate.run import devices
from evaluate.drawing.sample_choice import Choice
from evaluate.sample_config import SampleConfig
from finetune import doctor
from finetune.checkpoint import Checkpoint, weights_sha256
from finetune.export import holds
from finetune.methods.adapters import kohya
from finetune.models import load_model
from finetune.models.interface import LatentDiffusion
from finetune.opened_run import load_run


class Origin:
    """Where U-Nets come from: the checkpoints of a run, or a base model alone."""

    def __init__(self, config: SampleConfig) -> None:
        self.device = torch.device(devices.chosen(config.device))
        self.run = None if config.model else load_run(config.run.folder)
        if self.run is None:
            assert config.model is not None
            self.model: LatentDiffusion = load_model(config.model, self.device)
            self.path, self._stored = config.model.path, {}
        else:
            self.model, self.path = self.run.model(self.device), self.run.config.model.path
            self._stored = {c.step: c for c in self.run.all_checkpoints()}
            started = next(iter(self._stored.values())).state()["identity"]
            doctor.refuse_change(
                self.run.finetune_dir, started, {"weights": self.model.fingerprint()}
            )
        self.base_hash = self.model.fingerprint()  # before adapters are attached
        self._names: dict[Choice, tuple[str, str, dict[str, str]]] = {}

    def stored(self, choice: Choice) -> Checkpoint | None:
        """The checkpoint; None for the base."""
        return self._stored[choice.step] if choice.step else None

    def weights(self, choice: Choice) -> str:
        """A name of the weights for fingerprints."""
        known = weights_sha256(self.stored(choice))
        return known if choice.scale == 1 else f"{known} * {choice.scale!r}"

    def unet(self, choice: Choice) -> nn.Module:
        """The U-Net; the one of the last call is changed by the next one."""
        if self.run is None:
            return self.model.unet
        unet = self.run.unet_at(self.stored(choice), device=self.device)
        if choice.step and self.run.config.method.scalable:
            method = self.run.config.method
            for network in method.networks(self.model).values():
                method.rescale(network, choice.scale)
        return unet

    def named(self, choice: Choice) -> tuple[str, str, dict[str, str]]:
        """The model's name, its hash (10 hex digits) and other pairs for the picture's text."""
        if choice not in self._names:
            self._names[choice] = self._named(choice)
        return self._names[choice]

    def _named(self, choice: Choice) -> tuple[str, str, dict[str, str]]:
        base = Path(self.path).name
        stored = self.stored(choice)
        if self.run is None or stored is None:
            return base, self.base_hash[:10], {}
        name = self.run.run_dir.name
        more = {"Darkroom run": name, "Checkpoint": f"step {choice.step}"}
        if not self.run.config.method.scalable:
            return f"{name}-step-{choice.step}", weights_sha256(stored)[:10], more
        more["LoRA scale"] = f"{choice.scale:g}"
        if choice.scale and (file := self._lora_file(stored)):
            more["Lora hashes"] = f"{re.sub(r'[,:]', '', file.stem)}: {_lora_hash(file)}"
        return base, self.base_hash[:10], more

    def _lora_file(self, stored: Checkpoint) -> Path | None:
        """The file of the export of a checkpoint that web interfaces load; None without one."""
        assert self.run is not None
        for folder in (self.run.export_dir, self.run.finetune_dir / f"export-{stored.path.name}"):
            if holds(folder, stored) and (file := kohya.file_of(folder)):
                return file
        return None


def _lora_hash(file: Path) -> str:
    """How web interfaces name a file: SHA-256 of what is behind the header."""
    with file.open("rb") as stream:
        stream.seek(int.from_bytes(stream.read(8), "little") + 8)
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
