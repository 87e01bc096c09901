"""The schema of ``objective``: which noise a training sees, and how much each loss counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from curate.run.schema import UserError, check

WEIGHTINGS = ("none", "min_snr", "soft_min_snr", "debiased")
TIMESTEPS = ("stratified", "uniform", "logit_normal")


@dataclass
class ObjectiveConfig:
    """Which noise a training sees and how much each sample's loss counts. What is logged and held out is unweighted, but for masks.

    Attributes:
        weighting: of the loss by noise level, see ``finetune.objective.loss_weights``.
        snr_gamma: of ``min_snr`` and ``soft_min_snr``; 5 is the paper's.
        timesteps: ``stratified`` over a batch, which is uniform for each sample; ``uniform``, each sample's drawn
            for itself; ``logit_normal``, stratified too, t / T = sigmoid(mean + std z) with z standard normal
            (Esser et al. 2024, eq. 19).
        logit_mean, logit_std: of ``logit_normal``.
        noise_offset: times one more normal number for each sample and channel is added to the noise, so that a
            picture's mean can be learnt (Guttenberg 2023); 0 adds none.
        input_perturbation: times more normal noise is added to the input, and not to the target (Ning et al.
            2023, gamma of eq. 9); 0 adds none.
        zero_terminal_snr: rescales the noise levels so that the last is noise alone, from which every picture is drawn
            (Lin et al. 2024, algorithm 1), in training, held-out loss and drawing; kohya's ``zero_terminal_snr``. For
            models that predict v or the clean latents. False leaves what the pipeline's scheduler says.
        mask: whether the loss counts where a picture's ``key.mask.png`` says, see ``finetune.masks``; held-out losses
            too. Pictures without one count whole.
        unmasked_weight: what a position outside of the mask counts, 0 ... 1.
    """

    weighting: str = "none"
    snr_gamma: float = 5.0
    timesteps: str = "stratified"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    noise_offset: float = 0.0
    input_perturbation: float = 0.0
    zero_terminal_snr: bool = False
    mask: bool = False
    unmasked_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, accepted in (("weighting", WEIGHTINGS), ("timesteps", TIMESTEPS)):
            value = getattr(self, name)
            check(value in accepted, f"objective.{name}", value, ", ".join(accepted))
        for name in ("snr_gamma", "logit_std"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"objective.{name}", value, "> 0")
        check(
            math.isfinite(self.logit_mean),
            "objective.logit_mean",
            self.logit_mean,
            "a finite number",
        )
        for name in ("noise_offset", "input_perturbation", "unmasked_weight"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"objective.{name}", value, "0 ... 1")
        self._refuse_without_effect()

    def _refuse_without_effect(self) -> None:
        """Refuse a value that another setting leaves unread."""
        default = type(self)
        if self.unmasked_weight and not self.mask:
            raise UserError(
                f"objective.unmasked_weight={self.unmasked_weight:g} has no effect without objective.mask=true; type "
                "that, or remove it"
            )
        for name, setting, readers in (
            ("snr_gamma", "weighting", ("min_snr", "soft_min_snr")),
            ("logit_mean", "timesteps", ("logit_normal",)),
            ("logit_std", "timesteps", ("logit_normal",)),
        ):
            value, chosen = getattr(self, name), getattr(self, setting)
            if value != getattr(default, name) and chosen not in readers:
                raise UserError(
                    f"objective.{name}={value:g} has no effect with objective.{setting}={chosen}; "
                    f"type objective.{setting}={readers[0]}, or remove it"
                )
