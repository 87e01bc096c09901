"""Captions longer than a text encoder reads, cut into chunks that it reads one by one (``model.caption_tokens``).

A chunk is 75 tokens between a mark of start and one of end, and the hidden states of all chunks lie one behind the
other: 3 × 77 of them for 225 tokens. ComfyUI, AUTOMATIC1111 and Forge give a U-Net the same for a long prompt, and with
them people draw. kohya's trainers leave out the marks between the chunks, which makes 1 + 3 × 75 + 1, though what they
train is drawn with those programs, too. A U-Net attends to the marks as well as to the words, so it is trained here on
what it is drawn with. All agree on the pooled text of SDXL, which is the first chunk's.

Every caption has as many chunks as ``model.caption_tokens`` says, as with kohya's trainers, so that all are of one shape;
what a caption does not fill is encoded as an empty one. Web interfaces take as many as the longest prompt needs, and
AUTOMATIC1111 begins a chunk at a comma where there is one within the last 20 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding

from curate.clip.scorer import tokenised


def tokens(tokenizer: Any, captions: Sequence[str], chunks: int) -> BatchEncoding:
    """Of B captions, each filled up or cut to so many chunks of the tokenizer's length L, one behind the other.

    Returns:
        ``input_ids`` and ``attention_mask`` [B, chunks × L] int64.
    """
    length = tokenizer.model_max_length
    ids, masks = [], []
    for caption in captions:
        ids.append([])
        masks.append([])
        found = tokenizer(tokenised(caption), add_special_tokens=False, verbose=False).input_ids
        for start in range(0, chunks * (length - 2), length - 2):
            part = found[start : start + length - 2]
            row = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
            missing = length - len(row)
            ids[-1] += [*row, *[tokenizer.pad_token_id] * missing]
            masks[-1] += [1] * len(row) + [0] * missing
    return BatchEncoding({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks)})


def apart(tokens: Tensor, chunks: int) -> Tensor:
    """[B, chunks × L] to [B × chunks, L]: each chunk a text of its own."""
    return tokens.reshape(len(tokens) * chunks, -1)


def joined(states: Tensor, chunks: int) -> Tensor:
    """[B × chunks, L, D] to [B, chunks × L, D]: those of a caption one behind the other."""
    return states.reshape(-1, chunks * states.shape[1], states.shape[2])
