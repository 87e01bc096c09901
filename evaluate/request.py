"""What can be wrong with the request for an evaluation whatever run it is about, said before anything heavy loads."""

from __future__ import annotations

from curate.run import devices, tracking
from curate.run.schema import UserError
from evaluate.config import EvaluateConfig
from evaluate.measure import features, retention_inputs


def examine(config: EvaluateConfig) -> None:
    """Check what can be known without the run.

    Raises:
        UserError: a device, precision, package or file is not to be had here; says which, and what to type.
        FileNotFoundError: a file that the settings name is not there.
    """
    devices.refuse_absent("device", config.device)
    devices.refuse_absent("clip.device", config.clip.device)
    tracking.refuse_absent(config.tracker)
    if config.precision == "fp16" and (
        config.device == "cpu" or (config.device == "auto" and devices.has_no_gpu())
    ):
        raise UserError("precision=fp16 needs a GPU; type precision=bf16 or precision=no")
    retention_inputs.neutral_prompts(config.retention)
    retention_inputs.run_of_base(config)
    features.refuse_absent(config.distribution)
