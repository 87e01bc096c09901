"""The noise schedule, the network's target, the one loss that training and held-out evaluation share, and its weights.

Everything up to the network's input is fp32: in bf16 a schedule of 1,000 steps has only 192 distinct
noise levels, and the first ones add no noise at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curate.run.companions import MASK
from curate.run.schema import UserError
from finetune.conditioning import Conditioning
from finetune.prediction_types import PREDICTION_TYPES


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving schedule, x_t = alpha_t x_0 + sigma_t eps (Ho et al. 2020, eq. 4).

    Attributes:
        alphas: sqrt(alpha_bar_t), fp32, shape [T].
        sigmas: sqrt(1 - alpha_bar_t), fp32, shape [T].
        prediction_type: what the network predicts, one of ``PREDICTION_TYPES``.
    """

    alphas: Tensor
    sigmas: Tensor
    prediction_type: str

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"model.prediction_type={self.prediction_type!r} is not supported; "
                f"it must be one of {', '.join(PREDICTION_TYPES)}"
            )

    @classmethod
    def from_scheduler(cls, scheduler: Any, zero_terminal_snr: bool = False) -> NoiseSchedule:
        """Take the schedule and the prediction type of a diffusers scheduler.

        Args:
            scheduler: with ``alphas_cumprod`` [T].
            zero_terminal_snr: shift and scale the square roots of alpha_bar_t so that the last is 0 and the first stays
                (Lin et al. 2024, algorithm 1).
        """
        alpha_bar = scheduler.alphas_cumprod.double()
        if zero_terminal_snr:
            signal = alpha_bar.sqrt()
            if getattr(scheduler.config, "rescale_betas_zero_snr", False):
                signal[-1] = 0.0  # where some schedulers have 2^-12, since they divide by it
            alpha_bar = ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).square()
        return cls(
            alphas=alpha_bar.sqrt().float(),
            sigmas=(1 - alpha_bar).sqrt().float(),
            prediction_type=scheduler.config.prediction_type,
        )

    def __len__(self) -> int:
        return len(self.alphas)

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_t^2 / sigma_t^2, fp32 [T]; 0 at a step without signal."""
        return (self.alphas.double() / self.sigmas.double()).square().float()

    def to(self, device: torch.device) -> NoiseSchedule:
        """The same schedule with its tables on ``device``."""
        return NoiseSchedule(self.alphas.to(device), self.sigmas.to(device), self.prediction_type)

    def _at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        return self.alphas[timesteps, None, None, None], self.sigmas[timesteps, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t for clean ``latents`` and ``noise`` [B, C, H, W] fp32 at ``timesteps`` [B] int64."""
        alpha, sigma = self._at(timesteps)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict: eps, x_0, or v = alpha eps - sigma x_0 (Salimans & Ho 2022, app. D)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        alpha, sigma = self._at(timesteps)
        return alpha * noise - sigma * latents


def loss_weights(schedule: NoiseSchedule, weighting: str, gamma: float) -> Tensor | None:
    """What a sample's loss is multiplied by in training, by timestep; None where all weigh the same.

    A weighting says how much the error of the clean latents x_0 counts at a signal-to-noise ratio S, so that it means
    the same for every target: an error of eps is S times that of x_0, one of v is S + 1 times (Hang et al. 2023,
    sec. 3.4; Salimans & Ho 2022, sec. 4).

    - ``min_snr``: min(S, gamma) (Hang et al. 2023, eq. 8). For eps this is min(S, gamma) / S, for v
      min(S, gamma) / (S + 1).
    - ``soft_min_snr``: S gamma / (S + gamma) (Crowson et al. 2024, eq. 9).
    - ``debiased``: sqrt(S), for eps 1 / sqrt(S) (Yu et al. 2024, eq. 14).

    Args:
        schedule: of T steps.
        weighting: one of ``WEIGHTINGS``. gamma: of the first two.

    Returns:
        fp32 [T], on the schedule's device; not normalised, as in diffusers and kohya.

    Raises:
        UserError: the weight of a step without signal is not defined.
    """
    if weighting == "none":
        return None
    snr = schedule.snr.double()
    of_clean = {
        "min_snr": snr.clamp(max=gamma),
        "soft_min_snr": snr * gamma / (snr + gamma),
        "debiased": snr.sqrt(),
    }[weighting]
    in_units = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    weights = of_clean / in_units[schedule.prediction_type]
    if not weights.isfinite().all():
        raise UserError(
            f"objective.weighting={weighting} divides by the signal-to-noise ratio, which is 0 at the last step of this "
            "model's noise schedule (rescale_betas_zero_snr), and the model predicts epsilon; type objective.weighting=none"
        )
    return weights.float()


def denoising_loss(
    predict: Callable[[Tensor, Tensor, Conditioning], Tensor],
    schedule: NoiseSchedule,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    added: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """Unweighted squared error of the network's prediction, one value a sample.

    Args:
        predict: ``predict(x_t, timesteps, conditioning)``, the output of a network, like ``latents``;
            see :meth:`finetune.models.interface.LatentDiffusion.predict`.
        schedule: on the same device as the tensors.
        latents: clean, scaled latents [B, C, H, W], fp32.
        noise: standard normal, like ``latents``.
        timesteps: [B] int64 in [0, T).
        conditioning: of the B samples.
        added: the noise that the latents get, where it is not the one that the target is made of; see
            ``objective.input_perturbation``.
        target: fp32, like ``latents``, where it is not the schedule's, see ``finetune.retention.regularise``.

    Returns:
        fp32 [B], the mean over channels and positions, see :func:`mean_error`.
    """
    noisy = schedule.add_noise(latents, noise if added is None else added, timesteps)
    predicted = predict(noisy, timesteps, conditioning)
    if target is None:
        target = schedule.target(latents, noise, timesteps)
    return mean_error((predicted.float() - target).square(), conditioning)


def mean_error(squared: Tensor, conditioning: Conditioning) -> Tensor:
    """The mean [B] over channels and positions of squared errors [B, C, h, w], each times the picture's mask, if it has one.

    The entry ``mask`` [B, 1, h, w] of the conditioning holds weights 0 ... 1, see ``finetune.masks``.
    """
    mask = conditioning.tensors.get(MASK)
    return (squared if mask is None else squared * mask).mean(dim=(1, 2, 3))
