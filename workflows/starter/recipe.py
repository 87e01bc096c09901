"""The training hyperparameters of each starter model."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The training hyperparameters of one stage.

    Attributes:
        steps: optimizer steps in total.
        batch_size: samples per step.
        learning_rate: after the linear warm-up of `warmup_steps`.
        weight_decay: AdamW's.
        cooldown_share: share of the steps, at the end, in which the learning rate falls to zero.
        ema_decay: of the moving average of the weights, which is exported.
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
    def cooldown_start(self) -> int:
        """The step at which the learning rate begins to fall."""
        return round(self.steps * (1 - self.cooldown_share))

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then a cooldown to zero: 1 - sqrt over the last `cooldown_share`.

        From Hägele et al. 2024 (sec. 3); training can be extended until the cooldown begins.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if step < self.cooldown_start:
            return self.learning_rate
        progress = (step - self.cooldown_start) / (self.steps - self.cooldown_start)
        return self.learning_rate * (1 - math.sqrt(progress))


RECIPES = {
    "meaning": Recipe(
        steps=1000, batch_size=512, learning_rate=1e-3, warmup_steps=60, weight_decay=0.05,
        ema_decay=0.995, measure_every=200, seed=4,
    ),
    "clip": Recipe(
        steps=800, batch_size=256, learning_rate=1e-3, warmup_steps=60, weight_decay=0.05,
        ema_decay=0.998, measure_every=100, seed=1,
    ),
    "image": Recipe(
        steps=450, batch_size=128, learning_rate=5e-4, warmup_steps=40, weight_decay=0.05,
        ema_decay=0.99, measure_every=75, seed=5,
    ),
    "vae": Recipe(
        steps=10_400, batch_size=8, learning_rate=1.5e-3, warmup_steps=100, weight_decay=0.0,
        ema_decay=0.999, measure_every=250, seed=2,
    ),
    "unet": Recipe(
        steps=8_250, batch_size=32, learning_rate=1e-3, warmup_steps=200, weight_decay=0.01,
        cooldown_share=0.0, ema_decay=0.9985, measure_every=250, seed=3,
    ),
    # Adds each picture in other positions and sizes. Without them the U-Net memorises its two thousand
    # pictures, and fine-tuning on drawings of other proportions has to undo that first.
    "placed": Recipe(
        steps=12_000, batch_size=32, learning_rate=1e-3, warmup_steps=200, weight_decay=0.01,
        ema_decay=0.9985, measure_every=250, seed=6,
    ),
}  # fmt: skip
"""Recipes by stage name, in the order of training."""
