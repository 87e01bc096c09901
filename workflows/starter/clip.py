"""The starter CLIP's training: pictures of emoji against their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.architecture import encode_text, normalise, tokenize
from workflows.starter.emoji_batches import CaptionSampler, NameSampler, as_floats, vary
from workflows.starter.emoji_sets import Pictures
from workflows.starter.figures import kept_share, recall, separation
from workflows.starter.meaning import Lesson
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["clip"]
LOGIT_SCALE_RATE = 10.0
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


def clip_figures(
    model: Any, tokenizer: Any, pictures: Pictures, openmoji: Pictures
) -> dict[str, float]:
    """AUC on OpenMoji (all, without skin tones, unseen concepts) and on unseen Noto, and what they are
    used for: what cuts keep, and recall among the unseen concepts without skin tones and in all Noto.
    """
    figures = {"logit_scale": model.logit_scale.exp().item()}
    image, text = embed(model, tokenizer, openmoji)
    plain, unseen = torch.from_numpy(~openmoji.toned()), torch.from_numpy(openmoji.unseen())
    every = torch.ones_like(plain)
    for suffix, rows in {"": every, "_plain": plain, "_unseen": unseen}.items():
        figures[f"auc_openmoji{suffix}"] = separation(image[rows] @ text[rows].T)
    similarity = image[plain] @ text[plain].T
    for rate in FALSE_KEEP_RATES:
        figures[f"kept_openmoji_plain_at_{rate:.0%}"] = kept_share(similarity, rate)
    rows = plain & unseen
    figures["openmoji_unseen_pictures"] = int(rows.sum())
    figures["recall_openmoji_unseen"] = recall(image[rows] @ text[rows].T, RECALL_AT)
    noto = pictures.select(pictures.sets == "noto")
    image, text = embed(model, tokenizer, noto)
    plain, unseen = torch.from_numpy(~noto.toned()), torch.from_numpy(noto.unseen())
    figures["auc_noto_unseen"] = separation(image[unseen] @ text[unseen].T)
    for suffix, rows in {"": plain, "_unseen": plain & unseen}.items():
        figures[f"noto{suffix}_pictures"] = int(rows.sum())
        figures[f"recall_noto{suffix}"] = recall(image[rows] @ text[rows].T, RECALL_AT)
    return figures


class ClipTask:
    """Contrastive training (Radford et al. 2021, fig. 3) on emoji pictures and their names.

    Beside it the text tower goes on learning what words mean: a few thousand names alone would make
    it forget those that no picture shows.
    """

    def __init__(
        self,
        pictures: Pictures,
        openmoji: Pictures,
        lesson: Lesson,
        student: Any,
        tokenizer: Any,
        device: torch.device,
    ) -> None:
        # Channels last: most of the trunk's work is linear layers of channels.
        self.model: Any = student.to(device, memory_format=torch.channels_last)
        self.device = device
        self.tokenizer = tokenizer
        self.lesson = lesson
        seen = pictures.select(pictures.seen())
        self.images = torch.from_numpy(seen.images)
        self.sampler = CaptionSampler(seen)
        self.name_sampler = NameSampler(seen)
        self.tokens = tokenize(tokenizer, self.name_sampler.names)
        self.pictures, self.openmoji = pictures, openmoji

    def parameter_groups(self) -> list[dict]:
        """Decayed matrices, undecayed vectors, and the logit scale at ten times the rate."""
        named = [(n, p) for n, p in self.model.named_parameters() if n != "logit_scale"]
        return [
            {"params": [p for _, p in named if p.ndim > 1]},
            {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [self.model.logit_scale], "weight_decay": 0.0, "lr_scale": LOGIT_SCALE_RATE},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Symmetric cross-entropy over a batch of distinct captions, plus what words mean."""
        rows = self.sampler.draw(RECIPE.batch_size, generator)
        images = vary(as_floats(self.images[rows], self.device), generator)
        images = images.contiguous(memory_format=torch.channels_last)
        tokens = self.tokens[self.name_sampler.draw(rows, generator)].to(self.device)
        image = self.model.encode_image(normalise(images), normalize=True)
        scale = self.model.logit_scale.exp().clamp_max(MAX_LOGIT_SCALE)
        logits = scale * image @ encode_text(self.model, tokens).T
        target = torch.arange(len(rows), device=self.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + self.lesson.loss(self.model, RECIPE.batch_size, generator)

    def measure(self, model: Any) -> dict[str, float]:
        """See `clip_figures`; and how well unseen words are still understood."""
        figures = clip_figures(model, self.tokenizer, self.pictures, self.openmoji)
        return figures | self.lesson.measure(model)
