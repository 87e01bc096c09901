"""Before training: does the base predict the pictures' noise better than predicting nothing does, at each level?

A base that is read as another prediction type than it was trained for, or is given latents of another scale, still
learns: it undoes the mistake, and its loss falls. The mistake shows before training, in the loss of the base at single
noise levels.

Nothing is the prediction 0, the mean of what is to be predicted. Each target is y = a eps + b x_0 with standard
normal eps: a = 1 and b = 0 for ``epsilon``, alpha and -sigma for ``v_prediction`` (Salimans & Ho 2022, app. D), 0 and
1 for ``sample``. As eps and x_0 are independent, the loss of 0 is

    E[y^2] = a^2 + b^2 E[x_0^2],

so 1 for ``epsilon`` and alpha^2 + sigma^2 E[x_0^2] for v. The energy E[x_0^2] is measured, picture by picture. The
best prediction that is linear in the input x_t has the loss b'^2 E[x_0^2] / (alpha^2 E[x_0^2] + sigma^2) with b' =
alpha for ``epsilon`` and 1 for v, which is never more; for v and latents of energy 1, the scale that a VAE's
scaling_factor aims at (Rombach et al. 2022, app. G), the two are equal. It is not the bar, because it knows the energy
of just these pictures, which no base does.

For v and ``sample`` only levels count at which at least ``LEAST_SIGNAL`` of the input's variance is the picture's.
Where less is left, the prediction is what the base expects of such a caption, and pictures of another kind than it
was trained on are worse than nothing without any mistake. ``epsilon`` is judged at all levels. Measured with the
built-in base, which predicts v, on 32 pictures at 10 levels; the largest ratio of its loss to that of nothing:

    OpenMoji                       0.30 at the levels that count, 0.45 at all
    OpenMoji, colours inverted     0.70, 2.04
    photographs                    0.77, 1.47
    the first, read as epsilon     1.64
    latents 1.87 times as large    1.09      (scaling_factor 1 instead of 0.535)
    latents 0.34 times as large    2.27      (0.182 instead of 0.535)
    white noise                    1.81, 1.88
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.run.companions import MASK
from curate.run.files import write_certified
from curate.run.schema import UserError
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses
from finetune.intervals import Estimate, ratio
from finetune.latents import energies as energies_of
from finetune.latents import of_one_shape
from finetune.models.config import ModelConfig
from finetune.models.interface import LatentDiffusion
from finetune.objective import NoiseSchedule, mean_error
from finetune.prediction_types import PREDICTION_TYPES

FILE = "base.json"
LEAST_SIGNAL = 0.1  # alpha^2: the table above
PICTURES = 32  # on which other readings of the base are tried, and the base itself without held-out pictures
GRID = HeldoutGrid(draws=1)  # for these
USUAL_SCALE = (
    1 / 3,
    3.0,
)  # of the latents' root mean square, which a right scaling_factor brings near 1
_NEAR_ONE = (0.8, 1.25)  # where another scale explains nothing
_WORST = 3  # keys in the message


@dataclass(frozen=True, slots=True)
class Level:
    """The base at one timestep.

    Attributes:
        loss: its mean. nothing: that of predicting 0.
        ratio: of the two, with an interval over groups that is corrected for the number of levels.
        counts: whether the level is judged.
    """

    timestep: int
    loss: float
    nothing: float
    ratio: Estimate
    counts: bool

    @property
    def is_worse(self) -> bool:
        """Surely worse than nothing, or not a number."""
        return self.counts and (self.ratio.low > 1 or not math.isfinite(self.loss))


@dataclass(frozen=True, slots=True)
class BaseCheck:
    """What was measured.

    Attributes:
        prediction_type: as which the output was read.
        scale: the latents' root mean square.
        levels: one for each timestep of the grid.
        suspects: keys of the pictures with the largest loss.
    """

    prediction_type: str
    scale: float
    levels: tuple[Level, ...]
    suspects: tuple[str, ...]

    @property
    def counted(self) -> list[Level]:
        """The levels that are judged."""
        return [level for level in self.levels if level.counts]

    @property
    def worse(self) -> list[Level]:
        """Those of them at which the base is worse than nothing."""
        return [level for level in self.levels if level.is_worse]

    @property
    def is_sound(self) -> bool:
        """Whether it predicts better than nothing at all levels that count, with or without an interval."""
        return bool(self.counted) and all(level.ratio.value < 1 for level in self.counted)

    def save(self, path: Path) -> None:
        """Write ``base.json``, atomically; null stands for what is not a finite number."""
        write_certified(path, _finite(asdict(self)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Reading:
    """Another way to read the base, with which it is better than nothing at all levels.

    Attributes:
        check: of some of the pictures, read so.
        factor: the latents were multiplied by this before.
    """

    check: BaseCheck
    factor: float


def of_nothing(
    schedule: NoiseSchedule,
    timesteps: Tensor,
    energies: np.ndarray,
    shares: np.ndarray | float = 1.0,
) -> np.ndarray:
    """The expected loss of predicting 0 for the schedule's target.

    Args:
        schedule: of the model. timesteps: [K] int64.
        energies: [N], the mean square of each picture's clean latents; with masks that of what they let count.
        shares: [N], the mean of each picture's mask, which the loss of the noise is multiplied by.

    Returns:
        float64 [N, K].
    """
    alphas, sigmas = (
        table.cpu()[timesteps].double().numpy() for table in (schedule.alphas, schedule.sigmas)
    )
    noise, picture = {
        "epsilon": (np.ones_like(alphas), np.zeros_like(alphas)),
        "v_prediction": (alphas, -sigmas),
        "sample": (np.zeros_like(alphas), np.ones_like(alphas)),
    }[schedule.prediction_type]
    counted = np.broadcast_to(shares, energies.shape)[:, None]
    return noise**2 * counted + energies[:, None] * picture**2


def _counted(items: HeldoutItems) -> tuple[np.ndarray, np.ndarray | float]:
    """Energies and shares as :func:`of_nothing` takes them."""
    if MASK not in items.conditioning.tensors:
        return energies_of(items.latents), 1.0
    squares = of_one_shape(items.latents).double().square()
    energies, shares = (
        mean_error(x, items.conditioning) for x in (squares, torch.ones_like(squares))
    )
    return energies.numpy(), shares.numpy()


def compare(
    schedule: NoiseSchedule, items: HeldoutItems, grid: HeldoutGrid, losses: np.ndarray
) -> BaseCheck:
    """Compare the base's losses with those of predicting nothing.

    Args:
        schedule: of the base.
        items: N pictures that were measured. grid: at which levels.
        losses: [N, bins, draws], see :func:`finetune.heldout.grid_losses`.
    """
    timesteps = grid.timesteps(len(schedule)).flatten()
    energies, shares = _counted(items)
    mine = losses.astype(np.float64).reshape(len(items), -1)
    nothing = of_nothing(schedule, timesteps, energies, shares)
    signal = schedule.alphas.cpu()[timesteps].square().numpy()
    counts = (signal >= LEAST_SIGNAL) | (schedule.prediction_type == "epsilon")
    confidence = 1 - 0.05 / max(1, counts.sum())
    levels = tuple(
        Level(
            timestep=int(timestep),
            loss=float(mine[:, k].mean()),
            nothing=float(nothing[:, k].mean()),
            ratio=ratio(mine[:, k], nothing[:, k], items.groups, confidence),
            counts=bool(counts[k]),
        )
        for k, timestep in enumerate(timesteps.tolist())
    )
    least = np.maximum(nothing, np.finfo(np.float64).tiny)  # masks may leave nothing of a picture
    most = np.argsort(-(mine / least)[:, counts].sum(axis=1), kind="stable")[:_WORST]
    scale = float(np.sqrt(energies_of(items.latents).mean()))
    return BaseCheck(
        schedule.prediction_type, scale, levels, tuple(items.keys[place] for place in most)
    )


def reread(
    model: LatentDiffusion, unet: nn.Module, items: HeldoutItems, batch_size: int, found: BaseCheck
) -> Reading | None:
    """Find a prediction type or a scale of the latents with which the base is sound; None if neither explains it.

    Args:
        model: the base. unet: its own, before training.
        items: that were measured, of which some are measured again.
        batch_size: forward passes at a time.
        found: what is to be explained.
    """
    few = items.take(slice(PICTURES))
    others = [kind for kind in PREDICTION_TYPES if kind != found.prediction_type]
    to_one = 1 / found.scale if found.scale else math.nan
    tried = [(kind, 1.0) for kind in others]
    if math.isfinite(to_one) and not _NEAR_ONE[0] <= found.scale <= _NEAR_ONE[1]:
        tried += [(kind, to_one) for kind in (found.prediction_type, *others)]
    for kind, factor in tried:
        other: Any = copy(model)
        other.schedule = replace(model.schedule, prediction_type=kind)
        scaled = replace(few, latents=few.latents * factor)
        losses = grid_losses(other, unet, scaled, GRID, batch_size)
        check = compare(other.schedule, scaled, GRID, losses)
        if check.is_sound:
            return Reading(check, factor)
    return None


def judge(
    found: BaseCheck, reading: Reading | None, reaction: str, model: ModelConfig, look: str
) -> str:
    """The line to print.

    Args:
        found: what :func:`compare` returned.
        reading: what :func:`reread` returned, where the base is worse than nothing.
        reaction: ``doctor.base``.
        model: of the training, for what to type.
        look: the command that shows pairs, before their keys.

    Raises:
        UserError: the base is worse than nothing, and ``reaction`` is ``refuse``.
    """
    if not found.counted:
        return (
            "base    not checked: at no noise level that is measured is enough of the pictures left"
        )
    if not found.worse:
        said = f"base    loss {_range(found)}, {_on(found)}"
        if not USUAL_SCALE[0] <= found.scale <= USUAL_SCALE[1]:
            said = (
                f"warning: the latents' root mean square is {found.scale:.3g}, and U-Nets are trained at about 1: is "
                f"scaling_factor in {model.path}/vae/config.json right? {said}"
            )
        return said
    cause = _cause(found, reading, model, look)
    said = f"the base predicts worse than nothing: {_worst(found)}. {cause}"
    if reaction == "refuse":
        raise UserError(f"{said}. To train all the same, type doctor.base=warn")
    return f"warning: {said}"


def _range(found: BaseCheck) -> str:
    ratios = [level.ratio.value for level in found.counted]
    at = f"{len(ratios)} noise levels"
    return f"{min(ratios):.2f} to {max(ratios):.2f} times that of predicting nothing at {at}"


def _on(found: BaseCheck) -> str:
    first = found.levels[0].ratio
    return f"on {first.n} pictures ({first.groups} groups)"


def _worst(found: BaseCheck) -> str:
    count = f"{len(found.worse)} of {len(found.counted)} noise levels"
    if lost := [level for level in found.worse if not math.isfinite(level.loss)]:
        return f"at {len(lost)} of {len(found.counted)} noise levels its loss is not a number, {_on(found)}"
    worst = max(found.worse, key=lambda level: level.ratio.value)
    value, low, high = worst.ratio.value, worst.ratio.low, worst.ratio.high
    return (
        f"at {count} its loss is more than that of predicting 0, at timestep {worst.timestep} "
        f"{value:.2f} [{low:.2f}, {high:.2f}] times as much, {_on(found)}"
    )


def _cause(found: BaseCheck, reading: Reading | None, model: ModelConfig, look: str) -> str:
    """What is wrong, as far as another reading tells, and what to type."""
    if any(not math.isfinite(level.loss) for level in found.worse):
        return (
            "With optim.mixed_precision=fp16, type optim.mixed_precision=bf16 or no; without it, the base's weights "
            "are damaged: take another copy (model.path=...)"
        )
    if reading is None:
        return (
            "Neither another prediction type nor another scale of the latents explains it: either base and VAE do not "
            "belong together or are damaged, or these pictures are unlike all that the base knows. Look at some: "
            f"{look.format(keys=' '.join(found.suspects))}; or take another base (model.path=...)"
        )
    advice = []
    kind = reading.check.prediction_type
    if kind != found.prediction_type:
        advice.append(
            f"its U-Net predicts {kind}, not {found.prediction_type}: type model.prediction_type={kind}"
            f"{_for_others(found, model)}"
        )
    if reading.factor != 1:
        where = f"{model.path}/vae/config.json"
        if model.single_file():
            where = "vae/config.json of a folder of settings, named by model.config=FOLDER,"
        advice.append(
            f"the latents have {found.scale:.3g} times the scale that U-Nets are trained at: take the VAE that belongs "
            f"to this U-Net, or set scaling_factor in {where} to what the model was trained with, about "
            f"{reading.factor:.3g} times what it is"
        )
    where = "" if reading.factor == 1 else f" with latents {reading.factor:.3g} times as large"
    return f"Read as {kind}{where}, the same base has a loss of {_range(reading.check)}, so {', and '.join(advice)}"


def _for_others(found: BaseCheck, model: ModelConfig) -> str:
    """Where the wrong type comes from, if it was not typed."""
    if model.prediction_type is not None:
        return ""
    if model.single_file():
        return f" (the file says {found.prediction_type}, or nothing)"
    return f" (its scheduler/scheduler_config.json says {found.prediction_type}, which other programs believe)"
