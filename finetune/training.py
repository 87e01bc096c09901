"""What a training consists of while it runs; its only state is how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from curate.run.signals import StopRequest
from curate.run.tracking import Curves
from finetune.checkpoint import Checkpoint
from finetune.config import TrainConfig
from finetune.curve import HeldoutCurve
from finetune.data import Batches
from finetune.ema import Ema
from finetune.heldout import HeldoutGrid, HeldoutItems
from finetune.models.interface import LatentDiffusion
from finetune.retention.regularise import Regulariser
from finetune.samples import Samples
from finetune.time_spent import TimeSpent


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop; how far the run is was stored."""


@dataclass
class Progress:
    """How far the run is: what resuming needs beside the weights and the optimizer's state."""

    step: int = 0
    samples_seen: int = 0
    heldout: float | None = (
        None  # of the last evaluation, relative to the base; None: none yet, or not finite
    )
    stopped: str | None = None  # why the run ended early
    changes: list[dict[str, Any]] = field(default_factory=list)  # see ``doctor.changed``


@dataclass
class Window:
    """What has been trained since the last line of ``metrics.jsonl``.

    Attributes:
        loss: this process's sum over its samples.
        steps: updates. seconds: that they took.
    """

    loss: Tensor
    steps: int = 0
    seconds: float = 0.0


@dataclass
class Heldout:
    """What is measured while training: held-out pictures, as many training pictures, the curve so far.

    Attributes:
        base: the base's losses of ``val`` [N, bins, draws], where they were measured before the loop.
        seconds: that a picture took in the last measurement; 0 before. drawing: that the pictures of the last
            evaluation took to be drawn.
    """

    val: HeldoutItems
    train_probe: HeldoutItems
    grid: HeldoutGrid
    curve: HeldoutCurve
    base: np.ndarray | None = None
    seconds: float = 0.0
    drawing: float = 0.0


@dataclass
class Training:
    """Everything the loop needs, put together by ``finetune.assemble``.

    Attributes:
        folder: the run's ``finetune`` folder.
        identity: goes into ``state.json``, to tell whether a later start continues the same run.
        model: gives the noise levels and knows how its U-Net is called.
        unet: the model's, prepared by ``accelerator``; where text encoders are trained, the ``Denoiser`` of both.
        weights: those of its parameters that are trained.
        optimizer: over ``weights``, prepared too.
        loss_weights: by timestep, see ``finetune.objective``; None where all are 1.
        regulariser: the base as it was, where the loss holds on to it.
        samples: draws pictures at every evaluation.
        start: what it starts with; None where that is the base, which ``weights`` are of until then.
        window: for the next line of ``metrics.jsonl``.
        stored: the update of the last checkpoint.
        stop: whether a signal asked to stop.
        curves: get what ``metrics.jsonl`` gets, in the first process.
        spent: what the time since the start went to.
    """

    config: TrainConfig
    folder: Path
    identity: dict[str, Any]
    accelerator: Accelerator
    model: LatentDiffusion
    unet: nn.Module
    weights: dict[str, nn.Parameter]
    optimizer: Any
    ema: Ema | None
    batches: Batches
    loss_weights: Tensor | None
    heldout: Heldout | None
    samples: Samples
    window: Window
    regulariser: Regulariser | None = None
    start: Checkpoint | None = None
    progress: Progress = field(default_factory=Progress)
    stored: int = 0
    stop: StopRequest = field(default_factory=StopRequest)
    curves: Curves | None = None
    spent: TimeSpent = field(default_factory=TimeSpent)


def refuse_to_go_on(run: Training) -> None:
    """Raise if a signal asked any of the processes to stop; all of them do, at the same place.

    Raises:
        Interrupted: as it says.
    """
    asked = run.stop.made is not None
    if run.accelerator.num_processes > 1:
        mine = torch.tensor(float(asked), device=run.accelerator.device)
        total: Any = run.accelerator.reduce(mine, "sum")
        asked = total.item() > 0
    if asked:
        raise Interrupted
