"""Continue training the CLIP's image tower at full resolution, with the text tower frozen.

Like locked-image tuning (Zhai et al. 2022), but with the text tower locked. Its embeddings are computed
once, so each picture is compared with all captions instead of those of its batch, at more than twice
the pixels. The text encoder that the U-Net shares does not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.architecture import encode_text, normalise, tokenize
from workflows.starter.clip import MAX_LOGIT_SCALE, clip_metrics
from workflows.starter.emoji_batches import CaptionSampler, NameSampler, as_floats, augment, coarsen
from workflows.starter.emoji_sets import Pictures
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["image"]
TRUNK_LR_SCALE = 0.3  # keeps more of the ImageNet pretraining


class ImageTowerTask:
    """Classify each picture among all captions; the text tower is frozen."""

    def __init__(
        self,
        pictures: Pictures,
        openmoji: Pictures,
        clip: Any,
        tokenizer: Any,
        device: torch.device,
    ) -> None:
        self.model: Any = clip.to(device, memory_format=torch.channels_last)
        self.model.text.requires_grad_(False)
        self.device = device
        self.tokenizer = tokenizer
        self.pictures, self.openmoji = pictures, openmoji
        seen = pictures.select(pictures.seen())
        self.images = torch.from_numpy(seen.images)
        self.sampler = CaptionSampler(seen)
        captions, caption_of = np.unique(seen.captions, return_inverse=True)
        self.captions = self._embedded([str(caption) for caption in captions])
        self.caption_of = torch.from_numpy(caption_of)
        self.name_sampler = NameSampler(seen)
        self.names = self._embedded(self.name_sampler.names)

    @torch.no_grad()
    def _embedded(self, texts: list[str]) -> Tensor:
        unique, places = np.unique(texts, return_inverse=True)
        tokens = tokenize(self.tokenizer, unique.tolist()).to(self.device)
        embeddings = torch.cat([encode_text(self.model, part) for part in tokens.split(512)])
        return embeddings[torch.from_numpy(places).to(self.device)]

    def parameter_groups(self) -> list[dict]:
        """The trunk at a fraction of the learning rate, its projection, and the logit scale."""
        trunk = list(self.model.visual.trunk.parameters())
        head = list(self.model.visual.head.parameters())
        return [
            {"params": [p for p in trunk if p.ndim > 1], "lr_scale": TRUNK_LR_SCALE},
            {
                "params": [p for p in trunk if p.ndim <= 1],
                "lr_scale": TRUNK_LR_SCALE,
                "weight_decay": 0.0,
            },
            {"params": head},
            {"params": [self.model.logit_scale], "weight_decay": 0.0},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Cross-entropy of each picture over all captions; an alias sometimes replaces its own caption."""
        rows = self.sampler.draw(RECIPE.batch_size, generator)
        images = augment(as_floats(self.images[rows], self.device), generator)
        images = coarsen(images, generator).contiguous(memory_format=torch.channels_last)
        image = self.model.encode_image(normalise(images), normalize=True)
        own = self.names[self.name_sampler.draw(rows, generator).to(self.device)]
        target = self.caption_of[rows].to(self.device)
        cosines = (image @ self.captions.T).scatter(
            1, target[:, None], (image * own).sum(1, keepdim=True)
        )
        scale = self.model.logit_scale.exp().clamp_max(MAX_LOGIT_SCALE)
        return F.cross_entropy(scale * cosines, target)

    def measure(self, model: Any) -> dict[str, float]:
        """See `clip_metrics`."""
        return clip_metrics(model, self.tokenizer, self.pictures, self.openmoji)
