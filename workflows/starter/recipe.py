"""How long and how fast each starter model is trained."""

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
    # Then with each picture in other places and sizes as well: drawn as they are, two thousand are learned
    # by heart, and a fine-tuning to drawings of another cut has to forget them first.
    "placed": Recipe(
        steps=12_000, batch_size=32, learning_rate=1e-3, warmup_steps=200, weight_decay=0.01,
        ema_decay=0.9985, measure_every=250, seed=6,
    ),
}  # fmt: skip
"""By the names of the stages, in their order."""
