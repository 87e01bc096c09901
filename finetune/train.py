"""The command ``accelerate launch finetune/train.py``: check the configuration, then train on the shards."""

from __future__ import annotations

import sys
from pathlib import Path

from curate.run.schema import to_dataclass

if not __package__:  # launched by path: this folder must not be where imports are looked up first
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hydra
from omegaconf import DictConfig

from curate.run import cli as command
from finetune.config import TrainConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@command.polite
def main(cfg: DictConfig) -> None:
    """Report what is wrong with the configuration before anything heavy is imported."""
    config = to_dataclass(cfg, TrainConfig)
    from curate.run import folder
    from curate.run.manifest import read_manifest
    from finetune import doctor

    folder.settle(config.run, folder.CURATED, "train")
    key = "data.run" if config.data.run else "run.name"
    folder.refuse_unknown(config.curate_dir.parent, folder.CURATED, key)
    manifest = read_manifest(config.curate_dir)
    doctor.examine(config, manifest)
    from finetune.run import train

    train(config, manifest)


if __name__ == "__main__":
    command.run(main, "train")
