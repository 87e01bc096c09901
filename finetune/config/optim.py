"""The schema of the group ``optim``: the optimizer, its rate over time, and how a batch is computed."""

from __future__ import annotations

from dataclasses import dataclass

from curate.run.schema import UserError, check, register

SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("no", "fp16", "bf16")

_ADAM = ("beta1", "beta2", "eps")
READS = {
    "adamw": _ADAM,
    "adamw8bit": _ADAM,
    "adafactor": ("decay_rate", "clip_threshold"),
    "prodigy": (*_ADAM, "d0", "d_coef", "use_bias_correction", "safeguard_warmup"),
}
"""The settings that only some optimizers read, by the optimizer's name."""


@dataclass
class OptimConfig:
    """The optimizer, its learning rate over time, and how a batch is computed.

    Attributes:
        name: ``adamw`` (Loshchilov & Hutter 2017); ``adamw8bit``, the same with its moments in 8 bits (bitsandbytes);
            ``adafactor`` (Shazeer & Stern 2018; torch's), whose ``lr`` is relative to the size of each weight;
            ``prodigy`` (Mishchenko & Defazio 2023; prodigyopt), which finds the rate by itself, so that ``lr`` is 1.
        decay_rate, clip_threshold: of Adafactor, c and d of its algorithm 4; torch writes the first as beta2_decay.
        d0, d_coef, use_bias_correction, safeguard_warmup: of Prodigy, as prodigyopt has them.
        batch_size: samples of one update, over all processes and accumulated micro-batches.
        gradient_accumulation: micro-batches into which each process cuts its share of a batch.
        warmup: samples over which the learning rate rises from zero.
        mixed_precision: of the forward pass; null takes the setting of ``accelerate launch``. Weights
            that are trained, the noise and its schedule stay fp32.
        text_encoder_lr: the rate of the text encoders, where they are trained, over time like ``lr``; null is ``lr``.
    """

    name: str = "adamw"
    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup: int = 0
    batch_size: int = 16
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0
    mixed_precision: str | None = None
    decay_rate: float = -0.8
    clip_threshold: float = 1.0
    d0: float = 1e-6
    d_coef: float = 1.0
    use_bias_correction: bool = True
    safeguard_warmup: bool = True
    text_encoder_lr: float | None = None

    def __post_init__(self) -> None:
        rate = self.text_encoder_lr
        check(rate is None or rate > 0, "optim.text_encoder_lr", rate, "null or > 0")
        check(self.name in READS, "optim.name", self.name, ", ".join(READS))
        positive = ("lr", "eps", "batch_size", "gradient_accumulation", "max_grad_norm")
        for name in (*positive, "d0", "d_coef"):
            check(getattr(self, name) > 0, f"optim.{name}", getattr(self, name), "> 0")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "0 <= b < 1")
        for name in ("weight_decay", "warmup"):
            check(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), ">= 0")
        check(self.schedule in SCHEDULES, "optim.schedule", self.schedule, ", ".join(SCHEDULES))
        check(
            self.batch_size % self.gradient_accumulation == 0,
            "optim.gradient_accumulation",
            self.gradient_accumulation,
            f"a divisor of optim.batch_size={self.batch_size}",
        )
        precision = self.mixed_precision
        check(
            precision is None or precision in PRECISIONS,
            "optim.mixed_precision",
            precision,
            f"null, {', '.join(PRECISIONS)}",
        )
        check(self.decay_rate <= 0, "optim.decay_rate", self.decay_rate, "<= 0")
        check(self.clip_threshold >= 1, "optim.clip_threshold", self.clip_threshold, ">= 1")
        self._refuse_without_effect()

    def _refuse_without_effect(self) -> None:
        """Refuse a value that this optimizer does not read."""
        for name in sorted({name for names in READS.values() for name in names}):
            value = getattr(self, name)
            if value != getattr(type(self), name) and name not in READS[self.name]:
                readers = [other for other, names in READS.items() if name in names]
                shown = str(value).lower() if isinstance(value, bool) else f"{value:g}"
                raise UserError(
                    f"optim.{name}={shown} has no effect with optim={self.name}: it is of {', '.join(readers)}. "
                    f"Remove it, or type optim={readers[0]}"
                )


register(OptimConfig, "optim", "optim")
