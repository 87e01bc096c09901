"""Where the cache keeps latents and conditioning: a folder for each way to make them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from curate.run.shared_cache import CONDITIONING, LATENTS
from finetune.cache.framing import View
from finetune.cache.hold import hold
from finetune.models.interface import LatentDiffusion


def latents_folder(model: LatentDiffusion, cache_dir: Path, view: View) -> Path:
    """Where the latents of a view are, by this model's VAE."""
    return cache_dir / LATENTS / _name(f"{view.described()} {model.image_fingerprint()}")


def captions_folder(model: LatentDiffusion, cache_dir: Path) -> Path:
    """Where the conditioning by this model's text encoders is."""
    return cache_dir / CONDITIONING / _name(model.caption_fingerprint())


def held(model: LatentDiffusion, folder: Path) -> Path:
    """A folder of the cache, of which nothing is pruned from now on."""
    hold(model, folder)
    return folder


def _name(made_by: str) -> str:
    return hashlib.sha256(made_by.encode()).hexdigest()[:32]
