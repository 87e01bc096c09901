"""Pretrain the text tower: distil a sentence encoder's embeddings of words and names."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.architecture import build_student, encode_text, tokenize
from workflows.starter.pretrained import TextEmbeddings
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["meaning"]
NAME_SHARE = 0.125  # of a batch
HELD_OUT_WORDS = 500


class Distillation:
    """The distillation loss: words and picture names with the sentence encoder's embeddings as targets."""

    def __init__(self, targets: TextEmbeddings, tokenizer: Any, device: torch.device) -> None:
        self.device = device
        self.tokens = tokenize(tokenizer, targets.texts.tolist())
        self.embeddings = torch.from_numpy(targets.embeddings)
        order = torch.randperm(
            targets.word_count, generator=torch.Generator().manual_seed(RECIPE.seed)
        )
        self.held_out, self.words = order[:HELD_OUT_WORDS], order[HELD_OUT_WORDS:]
        self.names = torch.arange(targets.word_count, len(targets.texts))

    def loss(self, student: Any, count: int, generator: torch.Generator) -> Tensor:
        """Mean of 1 - cosine over ``count`` texts.

        Words and names are encoded separately because their lengths differ.
        """
        names = round(count * NAME_SHARE)
        parts = [
            self._cosine_distance(student, _draw(some, size, generator))
            for some, size in ((self.words, count - names), (self.names, names))
        ]
        return torch.cat(parts).mean()

    def measure(self, student: Any) -> dict[str, float]:
        """Mean cosine with the sentence encoder on held-out words."""
        return {
            "cosine_unseen_words": 1 - self._cosine_distance(student, self.held_out).mean().item()
        }

    def _cosine_distance(self, student: Any, rows: Tensor) -> Tensor:
        tokens, target = self.tokens[rows].to(self.device), self.embeddings[rows].to(self.device)
        return 1 - F.cosine_similarity(student.probe(encode_text(student, tokens)), target)


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(len(rows), (count,), generator=generator, device=generator.device)
    return rows[chosen.cpu()]


class MeaningTask:
    """Distillation only; the image tower is not trained."""

    def __init__(self, distillation: Distillation, device: torch.device) -> None:
        torch.manual_seed(RECIPE.seed)
        self.model: Any = build_student().to(device)
        self.distillation = distillation

    def parameter_groups(self) -> list[dict]:
        """Matrices with weight decay and vectors without, of the text tower and the probe."""
        parameters = [*self.model.text.parameters(), *self.model.probe.parameters()]
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """See `Distillation.loss`."""
        return self.distillation.loss(self.model, RECIPE.batch_size, generator)

    def measure(self, model: Any) -> dict[str, float]:
        """See `Distillation.measure`."""
        return self.distillation.measure(model)
