"""The starter CLIP's contrastive training on emoji pictures and their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.architecture import encode_text, normalise, tokenize
from workflows.starter.emoji_batches import CaptionSampler, NameSampler, as_floats, augment
from workflows.starter.emoji_sets import Pictures
from workflows.starter.meaning import Distillation
from workflows.starter.metrics import auc, kept_share, recall
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["clip"]
LOGIT_SCALE_LR_SCALE = 10.0
RECALL_AT = 5
FALSE_KEEP_RATES = (0.01, 0.05)
MAX_LOGIT_SCALE = 100.0  # as in CLIP (Radford et al. 2021, sec. 2.5)


@torch.inference_mode()
def embed(model: Any, tokenizer: Any, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Unit image and text embeddings of pictures and their captions, each (N, D)."""
    device = model.logit_scale.device
    images, texts = [], []
    tokens = tokenize(tokenizer, [str(caption) for caption in pictures.captions])
    for rows in np.array_split(np.arange(len(pictures)), max(1, len(pictures) // 128)):
        pixels = normalise(as_floats(pictures.images[rows], device))
        images.append(model.encode_image(pixels, normalize=True))
        texts.append(encode_text(model, tokens[rows].to(device)))
    return torch.cat(images), torch.cat(texts)


def clip_metrics(
    model: Any, tokenizer: Any, pictures: Pictures, openmoji: Pictures
) -> dict[str, float]:
    """AUC, kept shares and recall of a CLIP.

    AUC is on OpenMoji (all, without skin tones, unseen concepts) and on unseen concepts of Noto. Kept
    shares are on OpenMoji without skin tones. Recall, without skin tones, is on unseen concepts of
    OpenMoji, on all of Noto, and on unseen concepts of Noto.
    """
    metrics = {"logit_scale": model.logit_scale.exp().item()}
    image, text = embed(model, tokenizer, openmoji)
    plain, unseen = torch.from_numpy(~openmoji.toned()), torch.from_numpy(openmoji.unseen())
    every = torch.ones_like(plain)
    for suffix, rows in {"": every, "_plain": plain, "_unseen": unseen}.items():
        metrics[f"auc_openmoji{suffix}"] = auc(image[rows] @ text[rows].T)
    similarity = image[plain] @ text[plain].T
    for rate in FALSE_KEEP_RATES:
        metrics[f"kept_openmoji_plain_at_{rate:.0%}"] = kept_share(similarity, rate)
    rows = plain & unseen
    metrics["openmoji_unseen_pictures"] = int(rows.sum())
    metrics["recall_openmoji_unseen"] = recall(image[rows] @ text[rows].T, RECALL_AT)
    noto = pictures.select(pictures.sets == "noto")
    image, text = embed(model, tokenizer, noto)
    plain, unseen = torch.from_numpy(~noto.toned()), torch.from_numpy(noto.unseen())
    metrics["auc_noto_unseen"] = auc(image[unseen] @ text[unseen].T)
    for suffix, rows in {"": plain, "_unseen": plain & unseen}.items():
        metrics[f"noto{suffix}_pictures"] = int(rows.sum())
        metrics[f"recall_noto{suffix}"] = recall(image[rows] @ text[rows].T, RECALL_AT)
    return metrics


class ClipTask:
    """Contrastive training (Radford et al. 2021, fig. 3) on emoji pictures and their names.

    The text tower also keeps learning from the sentence encoder: trained on a few thousand names alone,
    it would forget words that no picture shows.
    """

    def __init__(
        self,
        pictures: Pictures,
        openmoji: Pictures,
        distillation: Distillation,
        student: Any,
        tokenizer: Any,
        device: torch.device,
    ) -> None:
        # Channels last is faster: most of the trunk's work is 1x1 convolutions.
        self.model: Any = student.to(device, memory_format=torch.channels_last)
        self.device = device
        self.tokenizer = tokenizer
        self.distillation = distillation
        seen = pictures.select(pictures.seen())
        self.images = torch.from_numpy(seen.images)
        self.sampler = CaptionSampler(seen)
        self.name_sampler = NameSampler(seen)
        self.tokens = tokenize(tokenizer, self.name_sampler.names)
        self.pictures, self.openmoji = pictures, openmoji

    def parameter_groups(self) -> list[dict]:
        """Matrices with weight decay, vectors without, and the logit scale at ten times the learning rate."""
        named = [(n, p) for n, p in self.model.named_parameters() if n != "logit_scale"]
        return [
            {"params": [p for _, p in named if p.ndim > 1]},
            {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
            {
                "params": [self.model.logit_scale],
                "weight_decay": 0.0,
                "lr_scale": LOGIT_SCALE_LR_SCALE,
            },
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Symmetric cross-entropy over a batch of distinct captions, plus the distillation loss."""
        rows = self.sampler.draw(RECIPE.batch_size, generator)
        images = augment(as_floats(self.images[rows], self.device), generator)
        images = images.contiguous(memory_format=torch.channels_last)
        tokens = self.tokens[self.name_sampler.draw(rows, generator)].to(self.device)
        image = self.model.encode_image(normalise(images), normalize=True)
        scale = self.model.logit_scale.exp().clamp_max(MAX_LOGIT_SCALE)
        logits = scale * image @ encode_text(self.model, tokens).T
        target = torch.arange(len(rows), device=self.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + self.distillation.loss(self.model, RECIPE.batch_size, generator)

    def measure(self, model: Any) -> dict[str, float]:
        """`clip_metrics` and the distillation's metric on held-out words."""
        metrics = clip_metrics(model, self.tokenizer, self.pictures, self.openmoji)
        return metrics | self.distillation.measure(model)
