"""The starter CLIP's architecture: EfficientNet-Lite0 and a small causal text tower; tokenizing and encoding."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workflows.starter.pretrained import SENTENCE_WIDTH
from workflows.starter.tokenizer import CONTEXT_LENGTH, VOCAB_SIZE

IMAGE_SIZE_PX = 96
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's, the default in open_clip
STD = (0.26862954, 0.26130258, 0.27577711)
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 224,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_drop": 0.0,
            "timm_drop_path": 0.0,
            "image_size": IMAGE_SIZE_PX,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCAB_SIZE,
            "hf_tokenizer_name": "starter",
            "width": 192,
            "heads": 3,
            "layers": 3,
        },
    },
    "preprocess_cfg": {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def build_clip() -> Any:
    """A randomly initialised open_clip model of the starter's architecture."""
    from open_clip.model import CustomTextCLIP

    shape = {key: value for key, value in CONFIG["model_cfg"].items() if key != "custom_text"}
    return CustomTextCLIP(**copy.deepcopy(shape))


def build_student() -> Any:
    """The CLIP plus ``probe``, a linear layer from its text embeddings to the sentence encoder's.

    The layer is only needed in training and is not exported.
    """
    model = build_clip()
    model.probe = nn.Linear(model.text.output_dim, SENTENCE_WIDTH)
    return model


def normalise(images: Tensor) -> Tensor:
    """Normalise pixels (N, 3, H, W) in [0, 1] with the image tower's mean and standard deviation."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / torch.tensor(STD, device=images.device).view(1, 3, 1, 1)


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Unit embeddings (N, D) of token ids (N, L), cut to the longest caption of the batch.

    The result is exact: the tower is causal and pools at the first end-of-text token, which has the
    highest id. open_clip's `encode_text` requires the full context and takes three times as long.
    """
    ends = tokens.argmax(dim=-1)
    length = int(ends.max()) + 1
    tower = model.text
    hidden = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    hidden = tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length])
    pooled = tower.ln_final(hidden)[torch.arange(len(tokens), device=tokens.device), ends]
    return F.normalize(pooled @ tower.text_projection, dim=-1)


def tokenize(tokenizer: Any, texts: list[str]) -> Tensor:
    """Token ids (N, CONTEXT_LENGTH), padded with end-of-text."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=CONTEXT_LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids
