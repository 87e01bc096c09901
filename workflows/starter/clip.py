"""The starter CLIP: a 3.5 M ConvNeXt and a small causal text tower, trained contrastively on emoji."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workflows.starter.emoji_batches import CaptionSampler, as_floats, vary
from workflows.starter.emoji_sets import Pictures
from workflows.starter.figures import kept_share, recall, separation
from workflows.starter.loop import Recipe
from workflows.starter.tokenizer import CONTEXT_LENGTH, VOCAB_SIZE

IMAGE_SIZE_PX = 64
RECIPE = Recipe(
    steps=2600, batch_size=256, learning_rate=1e-3, warmup_steps=60, weight_decay=0.05,
    ema_decay=0.998, measure_every=100, seed=1,
)  # fmt: skip
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, open_clip's default
STD = (0.26862954, 0.26130258, 0.27577711)
ALIAS_SHARE = 0.2
LOGIT_SCALE_RATE = 10.0
RECALL_AT = 5
FALSE_KEEP_RATES = (0.01, 0.05)
MAX_LOGIT_SCALE = 100.0  # as in CLIP (Radford et al. 2021, sec. 2.5)
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 256,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "convnext_atto",
            "timm_model_pretrained": False,
            "timm_pool": "",
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
            "layers": 4,
        },
    },
    "preprocess_cfg": {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def build_clip() -> nn.Module:
    """A randomly initialised open_clip model of the starter's shape."""
    import copy

    from open_clip.model import CustomTextCLIP

    shape = {key: value for key, value in CONFIG["model_cfg"].items() if key != "custom_text"}
    return CustomTextCLIP(**copy.deepcopy(shape))


def normalise(images: Tensor) -> Tensor:
    """[0, 1] pixels (N, 3, H, W) to what the image tower expects."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / torch.tensor(STD, device=images.device).view(1, 3, 1, 1)


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Unit embeddings (N, D) of token ids (N, L), cut to the longest caption of the batch.

    Exact, because the tower is causal and read at the first end-of-text, the highest id; open_clip's
    own `encode_text` insists on the full context and takes three times as long.
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
    """AUC on OpenMoji (all, without skin tones, unseen concepts) and on unseen Noto, and what the
    first two are used for: recall among unseen concepts without skin tones, and what cuts keep.
    """
    figures = {"logit_scale": model.logit_scale.exp().item()}
    image, text = embed(model, tokenizer, openmoji)
    plain, unseen = ~openmoji.toned(), ~openmoji.seen()
    every = np.ones(len(openmoji), dtype=bool)
    for suffix, rows in {"": every, "_plain": plain, "_unseen": unseen}.items():
        figures[f"auc_openmoji{suffix}"] = separation(image[rows] @ text[rows].T)
    similarity = image[plain] @ text[plain].T
    for rate in FALSE_KEEP_RATES:
        figures[f"kept_openmoji_plain_at_{rate:.0%}"] = kept_share(similarity, rate)
    rows = plain & unseen
    figures["recall_openmoji_unseen"] = recall(image[rows] @ text[rows].T, RECALL_AT)
    noto = pictures.select((pictures.sets == "noto") & ~pictures.seen())
    image, text = embed(model, tokenizer, noto)
    figures["auc_noto_unseen"] = separation(image @ text.T)
    rows = ~noto.toned()
    return figures | {"recall_noto_unseen": recall(image[rows] @ text[rows].T, RECALL_AT)}


class ClipTask:
    """Contrastive training (Radford et al. 2021, fig. 3) on emoji pictures and their names."""

    def __init__(
        self, pictures: Pictures, openmoji: Pictures, tokenizer: Any, device: torch.device
    ) -> None:
        torch.manual_seed(RECIPE.seed)
        # Channels last: a ConvNeXt block is a linear layer of channels between two convolutions.
        self.model: Any = build_clip().to(device, memory_format=torch.channels_last)
        self.device = device
        self.tokenizer = tokenizer
        seen = pictures.select(pictures.seen())
        self.images = torch.from_numpy(seen.images)
        self.sampler = CaptionSampler(seen)
        texts, first, counts = [], [], []
        for caption, aliases in zip(seen.captions, seen.aliases, strict=True):
            names = [str(caption), *filter(None, str(aliases).split("|"))]
            first.append(len(texts))
            counts.append(len(names))
            texts += names
        self.tokens = tokenize(tokenizer, texts)
        self.first, self.counts = torch.tensor(first), torch.tensor(counts)
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
        """Symmetric cross-entropy over a batch of distinct captions."""
        rows = self.sampler.draw(RECIPE.batch_size, generator)
        images = vary(as_floats(self.images[rows], self.device), generator)
        images = images.contiguous(memory_format=torch.channels_last)
        aliased = torch.rand(len(rows), generator=generator, device=self.device).cpu() < ALIAS_SHARE
        pick = torch.rand(len(rows), generator=generator, device=self.device).cpu()
        offset = torch.where(aliased, (pick * self.counts[rows]).long(), 0)
        tokens = self.tokens[self.first[rows] + offset].to(self.device)
        image = self.model.encode_image(normalise(images), normalize=True)
        scale = self.model.logit_scale.exp().clamp_max(MAX_LOGIT_SCALE)
        logits = scale * image @ encode_text(self.model, tokens).T
        target = torch.arange(len(rows), device=self.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def measure(self, model: Any) -> dict[str, float]:
        """See `clip_figures`."""
        return clip_figures(model, self.tokenizer, self.pictures, self.openmoji)
