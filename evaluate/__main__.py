"""The command ``python -m evaluate``: check the configuration, judge the run, exit with the gate's code."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import hydra
from omegaconf import DictConfig

from curate.run import cli as command
from curate.run.files import remove_parts
from curate.run.finished import refuse_finished
from curate.run.folder import curate_dir_of
from curate.run.joined import curations_of
from curate.run.locks import locked
from curate.run.next_command import COMMANDS, next_arguments
from curate.run.schema import to_dataclass
from evaluate.config import EvaluateConfig, refuse_ignored, renamed
from evaluate.measure import retention_inputs
from finetune.config import refuse_damaged


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
@command.polite
def main(cfg: DictConfig) -> None:
    """Judge the run. Under ``accelerate launch`` the first process does it and the others exit."""
    config = to_dataclass(cfg, EvaluateConfig)
    if int(os.environ.get("RANK", "0")) > 0:
        return
    refuse_ignored(cfg)
    for note in renamed(cfg):
        print(note, file=sys.stderr)
    from curate.run import folder
    from evaluate import request

    request.examine(config)
    folder.settle(config.run, folder.TRAINED, "evaluate")
    refuse_finished(config.run.folder)
    with locked(config.run.folder / "finetune", shared=True):
        pass  # a training at work, which may have no checkpoint yet, is said first
    folder.refuse_unknown(config.run.folder, folder.TRAINED)
    checkpoints = config.run.folder / "finetune" / "checkpoints"
    if not any(checkpoints.glob("step-*")):
        raise FileNotFoundError(
            f"run.name={config.run.name} has no checkpoints in {checkpoints}; type first: "
            f"{COMMANDS['train']} {next_arguments(config.run.folder)}"
        )
    refuse_damaged(config.run.folder)
    retention_inputs.settle(config)
    from evaluate import judging_clip
    from evaluate.judged_runs import against

    against.opened(config.gate.against, config)  # refuses before anything heavy is imported

    needed = config.samples.clip_captions > 0
    config.clip = judging_clip.settle(config.clip, config.run.folder, needed)
    sys.exit(start(config))


def start(config: EvaluateConfig) -> int:
    """Judge the run while no other process curates, trains or judges it; returns the exit code.

    Raises:
        UserError: as ``evaluate_run``.
        Busy: another process is at work.
    """
    run_dir = config.run.folder
    with ExitStack() as locks:
        for folder in (
            *curations_of(curate_dir_of(run_dir)),
            run_dir / "finetune",
            *retention_inputs.settle(config),
        ):
            locks.enter_context(locked(folder, shared=True))
        locks.enter_context(locked(run_dir / "evaluate"))
        remove_parts(run_dir / "evaluate")  # of killed evaluations
        from evaluate.run import evaluate_run

        return evaluate_run(config, say=print)


if __name__ == "__main__":
    command.run(main, "evaluate")
