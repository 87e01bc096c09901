"""The command ``accelerate launch finetune/train.py``: check the configuration, then train on the shards."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

if not __package__:  # launched by path: this folder must not be where imports are looked up first
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hydra
from omegaconf import DictConfig

from curate.run import cli as command
from curate.run.joined import shown
from curate.run.locks import locked
from curate.run.schema import UserError, to_dataclass
from finetune.config import TrainConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@command.polite
def main(cfg: DictConfig) -> None:
    """Report what is wrong with the configuration before anything heavy is imported."""
    start(to_dataclass(cfg, TrainConfig))


def start(config: TrainConfig) -> None:
    """Train while no other process changes the shards, or trains or judges this run.

    Of several processes of a launch the first holds the lock on the training.

    Raises:
        UserError: as ``doctor.examine`` and ``train``.
        Busy: another process is at work.
    """
    from curate.run import folder
    from curate.run.finished import refuse_finished
    from finetune import doctor, joined

    doctor.examine_settings(config)
    if config.run.name is None and (named := config.data.run or "-".join(config.data.runs)):
        key, value = (
            ("data.runs", shown(config.data.runs)) if config.data.runs else ("data.run", named)
        )
        raise UserError(
            f"{key}={value} needs a name for the training on it; type "
            f"{shlex.quote(f'run.name={named}-2')} as well"
        )
    folder.settle(config.run, folder.CURATED, "train")
    refuse_finished(config.run.folder)
    key = "data.runs" if config.data.runs else "data.run" if config.data.run else "run.name"
    with ExitStack() as locks:
        for curate_dir in config.curations:
            folder.refuse_unknown(curate_dir.parent, folder.CURATED, key)
            locks.enter_context(locked(curate_dir, shared=True))
        manifest = joined.read(config)
        doctor.examine(config, manifest)
        is_first = int(os.environ.get("RANK", "0")) == 0
        with locked(config.folder) if is_first else nullcontext():
            from finetune.run import train

            train(config, manifest)


if __name__ == "__main__":
    command.run(main, "train")
