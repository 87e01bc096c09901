"""A pipeline's scheduler with what the settings change of it: the prediction type and the noise levels."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from curate.run.schema import UserError
from finetune.models.config import ModelConfig
from finetune.models.refusals import refuse_epsilon
from finetune.objective import NoiseSchedule

_WITH_ENDS = ("linear", "scaled_linear")
_ZERO_SNR = "rescale_betas_zero_snr"


def with_settings(config: ModelConfig, scheduler: Any) -> Any:
    """The scheduler with ``model.prediction_type`` and ``model.beta_*``; the same one where none is set.

    Raises:
        UserError: the pipeline has no betas of which one is set; says what to type.
    """
    changed = config.betas
    if changed:
        changed["trained_betas"] = None  # which would be taken instead
        name = config.beta_schedule or scheduler.config["beta_schedule"]
        if config.beta_schedule is None and name not in _WITH_ENDS:
            raise UserError(
                f"model.beta_start and model.beta_end have no effect on the pipeline's beta_schedule={name}; type "
                "model.beta_schedule=linear or scaled_linear, or remove them"
            )
    if config.prediction_type:
        changed["prediction_type"] = config.prediction_type
    return type(scheduler).from_config(scheduler.config, **changed) if changed else scheduler


def with_zero_terminal_snr(scheduler: Any) -> Any:
    """A scheduler whose last step is without signal, and which draws from there, as diffusers documents it.

    A class that does not know such schedules, as PNDM's, gives way to DDIM's.
    """
    kind, changed = type(scheduler), {_ZERO_SNR: True, "timestep_spacing": "trailing"}
    if _ZERO_SNR not in inspect.signature(kind.__init__).parameters:
        kind = DDIMScheduler
        changed["clip_sample"] = False  # which is for pixels, and on by default there
    return kind.from_config(scheduler.config, **changed)


def set_zero_terminal_snr(config: ModelConfig, model: Any) -> None:
    """Give a loaded model noise levels whose last is without signal, in place.

    Args:
        config: of the model, for the message.
        model: of ``finetune.models.interface.LatentDiffusion``; was asked for no fingerprint yet.

    Raises:
        UserError: it predicts epsilon.
    """
    refuse_epsilon(config, model.schedule.prediction_type)
    schedule = NoiseSchedule.from_scheduler(model.scheduler, zero_terminal_snr=True)
    model.schedule = schedule.to(model.schedule.alphas.device)
    model.scheduler = with_zero_terminal_snr(model.scheduler)
    model.zero_terminal_snr = True
