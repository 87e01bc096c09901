"""Encode images and captions with a CLIP of open_clip, each caption at its own length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from curate.run.progress import Bar

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


TOKENISED_CHARACTERS = 10_000
"""Of a caption, from its start: a tokenizer reads no more, or 50 million would take 8 GB. A token of
CLIP's vocabulary has 32 bytes at most, so that these are more than 300 tokens, of 77 that count."""

Item = TypeVar("Item")


def tokenised(caption: str) -> str:
    """The part of ``caption`` that tokenizers read, its first ``TOKENISED_CHARACTERS``."""
    return caption[:TOKENISED_CHARACTERS]


@dataclass
class Work:
    """How much was encoded, and in how many seconds."""

    items: int = 0
    seconds: float = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Count a batch."""
        self.items += items
        self.seconds += seconds

    @property
    def rate(self) -> float:
        """Items per second; 0 before anything was encoded."""
        return self.items / self.seconds if self.seconds else 0.0


@dataclass
class ClipScorer:
    """A CLIP ready to encode. Embeddings have unit length, so their dot product is the similarity.

    ``batch_size`` is halved whenever the accelerator runs out of memory.
    """

    name: str
    fingerprint: str
    model: Any
    preprocess: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    images: Work = field(default_factory=Work)
    texts: Work = field(default_factory=Work)

    @property
    def image_px(self) -> int:
        """The longer side of the model's input."""
        size = self.model.visual.image_size
        return size if isinstance(size, int) else max(size)

    def encode_images(self, images: list[Image]) -> np.ndarray:
        """N RGB images => N x D float32, unit length."""
        return _joined(
            self.encode_pixels([self.preprocess(image) for image in batch])
            for batch in self._batches(images)
        )

    def encode_pixels(self, pixels: list[torch.Tensor]) -> np.ndarray:
        """N results of ``preprocess``, 3 x H x W each => N x D float32, unit length."""
        import torch

        return _joined(
            self._encode(self._encode_pixels, torch.stack(batch), self.images)
            for batch in self._batches(pixels)
        )

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """N captions, see ``tokenised`` => N x D float32, unit length; equal ones are encoded once.

        Where the text tower is causal and pooled at the end-of-text token, padding behind that token has
        no effect on it: captions are grouped by length and encoded without padding.
        """
        texts = [tokenised(text) for text in texts]
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, 0), np.float32)
        tokens = self.tokenizer(distinct)
        lengths = _own_lengths(self.model, tokens)
        groups: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths):
            groups[length].append(row)
        encoded: dict[int, np.ndarray] = {}
        for length, rows in sorted(groups.items()):
            for batch in self._batches(rows):
                features = self._encode(self._encode_tokens, tokens[batch, :length], self.texts)
                encoded.update(zip(batch, features, strict=True))
        row_of = {text: row for row, text in enumerate(distinct)}
        return np.stack([encoded[row_of[text]] for text in texts])

    def tokens(self, captions: list[str]) -> list[int]:
        """Each caption's number of tokens with both ends, before the tokenizer truncates; see ``tokenised``."""
        captions = [tokenised(caption) for caption in captions]
        inner = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:  # OpenAI's own byte pairs, without the ends
            return [len(self.tokenizer.encode(caption)) + 2 for caption in captions]
        if not captions:
            return []
        cleaned = [self.tokenizer.clean_fn(caption) for caption in captions]
        ids = inner(cleaned, padding=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def speed(self) -> str:
        """The measured rate in words, such as ``41.0 images/s, 210.3 captions/s on cpu``."""
        return f"{self.images.rate:.1f} images/s, {self.texts.rate:.1f} captions/s on {self.device}"

    def _batches(self, items: list[Item]) -> Iterator[list[Item]]:
        """Slices of ``batch_size``, which may shrink between two of them."""
        start = 0
        while start < len(items):
            batch = items[start : start + self.batch_size]
            start += len(batch)
            yield batch

    def _encode(self, encode: Any, batch: torch.Tensor, work: Work) -> np.ndarray:
        """Unit features of a batch, which is halved as often as memory runs out.

        Every batch is padded to the same size: the last digits depend on the size of a batch, and so
        would the shards.
        """
        import torch

        size = max(len(batch), self.batch_size)
        start = perf_counter()
        try:
            features = self._run(encode, _padded(batch, size))[: len(batch)]
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            work.add(len(batch), perf_counter() - start)
            return features
        # Outside the handler, whose traceback keeps alive what has to be freed.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (size + 1) // 2
        self.batch_size = min(self.batch_size, half)
        Bar.write(f"clip: out of memory on {self.device}; continuing in batches of {half}")
        return np.concatenate([self._encode(encode, part, work) for part in batch.split(half)])

    def _encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels.to(self.dtype))

    def _encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Open_clip's own forward pass, its position table and causal mask cut to B x L tokens."""
        from torch.func import functional_call

        length, tower = tokens.shape[1], getattr(self.model, "text", None)
        owner = self.model if tower is None else tower
        if length == self.model.context_length:
            return self.model.encode_text(tokens)
        cut = {
            "positional_embedding": owner.positional_embedding[:length],
            "attn_mask": owner.attn_mask[:length, :length],
        }
        if tower is not None:
            return functional_call(tower, cut, (tokens,))
        output = functional_call(self.model, cut, (None, tokens))
        return output["text_features"] if isinstance(output, dict) else output[1]

    def _run(self, encode: Any, batch: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            features = encode(batch.to(self.device, non_blocking=True))
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _padded(batch: torch.Tensor, size: int) -> torch.Tensor:
    """``batch`` with its last row repeated up to ``size`` rows."""
    if len(batch) == size:
        return batch
    return batch[[min(row, len(batch) - 1) for row in range(size)]]


def _joined(batches: Iterator[np.ndarray]) -> np.ndarray:
    found = list(batches)
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


def _own_lengths(model: Any, tokens: torch.Tensor) -> list[int]:
    """Tokens of each caption up to its end-of-text, or the padded length where the tower needs the padding."""
    from open_clip.transformer import TextTransformer

    tower = getattr(model, "text", model)
    pooling = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
    plain = tower is model or (isinstance(tower, TextTransformer) and tower.cls_emb is None)
    if not plain or getattr(tower, "attn_mask", None) is None or pooling not in ("argmax", "eos"):
        return [tokens.shape[1]] * len(tokens)
    if pooling == "argmax":  # end-of-text is the highest id
        return (tokens.argmax(dim=-1) + 1).tolist()
    end = getattr(tower, "text_eos_id", None) or tower.eos_id
    return ((tokens == end).int().argmax(dim=-1) + 1).tolist()
