"""Small models on CLIP's image embeddings: LAION's aesthetic and NSFW heads, or any of their shape.

A head belongs to the CLIP it was trained on. Published ones:

- aesthetic V1 (github.com/LAION-AI/aesthetic-predictor): one linear layer, ``weight`` and ``bias``.
- aesthetic V2 (github.com/christophschuhmann/improved-aesthetic-predictor, the ``linearMSE`` files):
  linear layers 768-1024-128-64-16-1 called ``layers.N``, no activations.
- NSFW (github.com/LAION-AI/CLIP-based-NSFW-Detector): ``norm.mean`` and ``norm.variance`` of the
  training embeddings, then ``linear_1`` ... ``linear_4``, 768-64-512-256-1, with ReLU between and a
  sigmoid at the end. It is an autokeras model; that repository holds it converted to PyTorch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from curate.clip.config import HeadConfig
from curate.run.files import sha256_of
from curate.run.schema import UserError

Layers = list[tuple[np.ndarray, np.ndarray]]

_EPSILON = 1e-10  # added to the standard deviation, as in LAION's own conversion


@dataclass(frozen=True)
class Head:
    """Embeddings N x ``width``, unit length => N scores, float32.

    ``mean`` and ``deviation`` normalise each dimension first; a head that has them is LAION's detector,
    with ReLU between its layers and a sigmoid at its end.
    """

    path: str
    sha256: str
    layers: Layers
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    @property
    def width(self) -> int:
        """The size D of the embeddings that it was trained on."""
        return self.layers[0][0].shape[1]

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Score ``embeddings``, in double precision: in single, the last digits depend on how many there are.

        Raises:
            UserError: they have another width, so they are of another CLIP.
        """
        self.check_width(embeddings.shape[1])
        x, detects = embeddings.astype(np.float64), False
        if self.mean is not None and self.deviation is not None:
            x, detects = (x - self.mean) / self.deviation, True
        for number, (weight, bias) in enumerate(self.layers, start=1):
            x = x @ weight.T + bias
            if detects and number < len(self.layers):
                x = np.maximum(x, 0)
        scores = x[:, 0]
        if detects:
            scores = (1 + np.tanh(scores / 2)) / 2  # the sigmoid, without its overflow
        return scores.astype(np.float32)

    def check_width(self, found: int) -> None:
        """Refuse the embeddings of another CLIP.

        Raises:
            UserError: the widths differ; it gives both.
        """
        if found != self.width:
            raise UserError(
                f"the head {self.path} reads embeddings of {self.width} numbers, and this CLIP makes "
                f"{found}; choose the CLIP that it was trained on (768: ViT-L-14, 512: ViT-B-32)"
            )


def load_head(config: HeadConfig) -> Head:
    """Read a head from its file; a pickle may hold tensors only.

    Raises:
        FileNotFoundError: no such file.
        UserError: the file's hash is not ``config.sha256``, or its layers are not those of ``config.kind``.
    """
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"heads.NAME.path={config.path}: no such file")
    digest = sha256_of(path)
    if config.sha256 not in (None, digest):
        raise UserError(
            f"heads.NAME.path={config.path} is another file: its sha256 is {digest}, and "
            f"heads.NAME.sha256={config.sha256}"
        )
    state = _tensors(path)
    mean, variance = state.pop("norm.mean", None), state.pop("norm.variance", None)
    if (config.kind == "nsfw") != (mean is not None and variance is not None):
        kind = "linear" if config.kind == "nsfw" else "nsfw"
        raise UserError(
            f"heads.NAME.path={config.path} does not look like heads.NAME.kind={config.kind} (by "
            f"norm.mean and norm.variance); type kind={kind}"
        )
    layers = _layers(state, config.path)
    if mean is None or variance is None:
        return Head(str(path), digest, layers)
    return Head(str(path), digest, layers, mean, np.sqrt(variance) + np.float32(_EPSILON))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in state.items()}
    except (UnpicklingError, SafetensorError, RuntimeError, EOFError, AttributeError) as error:
        # Not torch's own words: they say how to run what the pickle holds.
        raise UserError(
            f"heads.NAME.path={path} is not a file of named tensors; a pickle of anything else can run code and "
            "is not opened. Save the head's state_dict with safetensors.torch.save_file"
        ) from error


def _layers(state: dict[str, np.ndarray], path: str) -> Layers:
    """The linear layers by the numbers in their names; each takes what the one before it gives."""
    owners = sorted({name.rpartition(".")[0] for name in state}, key=_natural)
    prefixes = [f"{owner}." if owner else "" for owner in owners]
    try:
        layers = [(state[f"{prefix}weight"], state[f"{prefix}bias"]) for prefix in prefixes]
    except KeyError as error:
        raise UserError(f"heads.NAME.path={path}: a layer has no {error}") from error
    sizes = [weight.shape for weight, _ in layers]
    chained = all(len(size) == 2 for size in sizes) and all(
        before[0] == after[1] for before, after in pairwise(sizes)
    )
    if not layers or not chained or sizes[-1][0] != 1:
        raise UserError(
            f"heads.NAME.path={path}: not a chain of linear layers that ends in one output: {sizes}"
        )
    return layers


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort ``layers.10`` after ``layers.2``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
