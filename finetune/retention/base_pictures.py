"""Pictures that the base drew itself: drawn once for each prompt, encoded, and kept in the run's folder.

``<run>/finetune/NAME/`` holds a PNG for each and ``latents.npz``. The seeds are fixed, so that the same base and prompts
give the same pictures; a start that was interrupted draws what is missing. They pass the VAE as a training picture does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from curate.run import checksums
from finetune import npz
from finetune.at_once import pictures_at_once
from finetune.conditioning import Conditioning
from finetune.crop import Crop
from finetune.data import keyed_seed
from finetune.drawing.config import SamplerConfig
from finetune.drawing.latents import encode
from finetune.drawing.sampling import Prompt, Sampler
from finetune.models.interface import LatentDiffusion

_SAMPLER = SamplerConfig("dpm_solver++")
_SEED = "picture of the base"
_FILE = "latents.npz"


class BasePictures:
    """N pictures with their prompts, as training reads samples; in memory.

    Attributes:
        keys: of the pictures. prompts: of each.
        latents: [N, C, h, w] fp32, on the CPU.
        empty: the conditioning of the empty caption alone, fp32.
    """

    def __init__(
        self, model: LatentDiffusion, prompts: Sequence[str], keys: Sequence[str], latents: Tensor
    ) -> None:
        self.keys, self.prompts, self.latents = list(keys), list(prompts), latents
        self._different = list(dict.fromkeys(prompts))
        self._captions = model.encode_captions(self._different).to("cpu").half()
        whole = model.picture_entries([Crop.whole(model.resolution)])
        self._of_picture = {name: entry.float() for name, entry in whole.items()}
        self.empty = model.encode_captions([""]).to("cpu")

    def __len__(self) -> int:
        return len(self.keys)

    def latents_of(self, indices: Tensor) -> Tensor:
        """[B, C, h, w] fp32."""
        return self.latents[indices]

    def conditioning_of(
        self, indices: Tensor, which: Tensor | None = None, dropped: Tensor | None = None
    ) -> Conditioning:
        """Of the prompts, fp32; the empty one where ``dropped`` [B] is true. ``which`` is not read: each has one."""
        places = [self._different.index(self.prompts[index]) for index in indices.tolist()]
        entries = {
            name: entry.expand(len(places), *entry.shape[1:])
            for name, entry in self._of_picture.items()
        }
        captions = self._captions.take(places).float()
        found = Conditioning(captions.tensors | entries, frozenset(entries))
        return found if dropped is None else found.drop(dropped, self.empty)


def pictures_of(
    folder: Path,
    name: str,
    model: LatentDiffusion,
    unet: Callable[[], nn.Module],
    prompts: Sequence[str],
    held: str = "fp32",
) -> BasePictures:
    """Draw and encode what is missing, and return all.

    Args:
        folder: of the training. name: of the folder in it.
        model: the base, whose :meth:`fingerprint` was asked for before anything was attached.
        unet: gives a U-Net that computes what the base does; called where something is missing.
        prompts: of each picture; of equal ones each starts from other noise.
        held: in which precision the U-Net's weights are held, see ``finetune.frozen``.
    """
    place, weights = folder / name, "base" if held == "fp32" else f"base in {held}"
    wanted = [
        _prompt(text, list(prompts[:number]).count(text)) for number, text in enumerate(prompts)
    ]
    sampler = Sampler(model, _SAMPLER, 0, pictures_at_once(model.resolution))
    mark = hashlib.sha256(
        " ".join(sampler.fingerprint(each, weights) for each in wanted).encode()
    ).hexdigest()
    latents = _stored(place / _FILE, mark)
    if latents is None:
        with checksums.updated(folder, (f"{name}/",)):
            drawn = sampler.draw_missing(place, wanted, weights, unet)
            latents = encode(model, drawn)
            npz.write(place / _FILE, {"latents": latents.numpy(), "mark": np.array(mark)})
    return BasePictures(model, prompts, [each.key for each in wanted], latents)


def _prompt(text: str, number: int) -> Prompt:
    """The picture of a prompt; the same one again has noise of its own."""
    seed = keyed_seed(_SEED, text, number) % 2**32
    key = hashlib.blake2b(f"{text}\x00{number}".encode(), digest_size=8).hexdigest()
    return Prompt(f"base-{key}", text, seed)


def _stored(path: Path, mark: str) -> Tensor | None:
    """The latents in a file, where they are those of ``mark``; else None."""
    try:
        found = npz.read(path)
    except (FileNotFoundError, npz.DamagedArrays):
        return None
    return torch.from_numpy(found["latents"]) if str(found["mark"]) == mark else None
