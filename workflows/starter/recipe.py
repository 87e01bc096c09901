"""How long and how fast one starter model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How long and how fast one starter model is trained.

    Attributes:
        steps: optimizer steps from start to end.
        batch_size: samples a step.
        learning_rate: after `warmup_steps` of linear rise.
        weight_decay: AdamW's.
        cooldown_share: the last part of the steps, in which the learning rate falls to zero.
        ema_decay: of the weights that are exported.
        measure_every: steps between measurements; a checkpoint is written with each.
        seed: of the initial weights, the batches and the noise.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    cooldown_share: float = 0.3
    ema_decay: float = 0.998
    measure_every: int = 100
    seed: int = 0

    @property
    def hot_steps(self) -> int:
        """Steps before the learning rate begins to fall."""
        return round(self.steps * (1 - self.cooldown_share))

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then down to zero as 1 - sqrt over the last `cooldown_share`.

        The shape of Hägele et al. 2024 (sec. 3), which can be prolonged until it begins to cool.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if step < self.hot_steps:
            return self.learning_rate
        cooled = (step - self.hot_steps) / (self.steps - self.hot_steps)
        return self.learning_rate * (1 - math.sqrt(cooled))
