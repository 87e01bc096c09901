"""The text tower before it has seen a picture: it learns what words mean from a sentence encoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.architecture import build_student, encode_text, tokenize
from workflows.starter.pretrained import Meanings
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["meaning"]
NAME_SHARE = 0.125
HELD_OUT_WORDS = 500


class Lesson:
    """Words and names of pictures with the embeddings that the sentence encoder gives them."""

    def __init__(self, meanings: Meanings, tokenizer: Any, device: torch.device) -> None:
        self.device = device
        self.tokens = tokenize(tokenizer, meanings.texts.tolist())
        self.embeddings = torch.from_numpy(meanings.embeddings)
        order = torch.randperm(meanings.words, generator=torch.Generator().manual_seed(RECIPE.seed))
        self.held_out, self.words = order[:HELD_OUT_WORDS], order[HELD_OUT_WORDS:]
        self.names = torch.arange(meanings.words, len(meanings.texts))

    def loss(self, student: Any, count: int, generator: torch.Generator) -> Tensor:
        """Mean of 1 - cosine over ``count`` texts; words and names apart, for their lengths differ."""
        names = round(count * NAME_SHARE)
        parts = [
            self._disagreement(student, _draw(some, size, generator))
            for some, size in ((self.words, count - names), (self.names, names))
        ]
        return torch.cat(parts).mean()

    def measure(self, student: Any) -> dict[str, float]:
        """Mean cosine with the sentence encoder on words that were held out."""
        return {"cosine_unseen_words": 1 - self._disagreement(student, self.held_out).mean().item()}

    def _disagreement(self, student: Any, rows: Tensor) -> Tensor:
        tokens, wanted = self.tokens[rows].to(self.device), self.embeddings[rows].to(self.device)
        return 1 - F.cosine_similarity(student.probe(encode_text(student, tokens)), wanted)


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(len(rows), (count,), generator=generator, device=generator.device)
    return rows[chosen.cpu()]


class MeaningTask:
    """Nothing but the lesson; the image tower stays as it is."""

    def __init__(self, lesson: Lesson, device: torch.device) -> None:
        torch.manual_seed(RECIPE.seed)
        self.model: Any = build_student().to(device)
        self.lesson = lesson

    def parameter_groups(self) -> list[dict]:
        """Decayed matrices and undecayed vectors of the text tower and the probe."""
        parameters = [*self.model.text.parameters(), *self.model.probe.parameters()]
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """See `Lesson.loss`."""
        return self.lesson.loss(self.model, RECIPE.batch_size, generator)

    def measure(self, model: Any) -> dict[str, float]:
        """See `Lesson.measure`."""
        return self.lesson.measure(model)
