"""What is due after an update: a checkpoint, an evaluation, a line of the log."""

from __future__ import annotations

from finetune.config import TrainConfig


def due(config: TrainConfig, step: int) -> tuple[bool, bool]:
    """Whether a checkpoint and whether an evaluation are due after update ``step``, counted from one."""
    size = config.optim.batch_size
    saves = step == config.steps or crossed(config.checkpoint.every, step, size)
    return saves, saves or crossed(config.heldout.every, step, size)


def crossed(every: int, step: int, size: int) -> bool:
    """Whether update ``step`` of ``size`` samples went beyond a multiple of ``every`` samples.

    >>> [crossed(10, step, 4) for step in (1, 2, 3, 4, 5)]
    [False, False, True, False, True]
    """
    return step * size // every > max(0, step - 1) * size // every
