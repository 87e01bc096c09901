"""Load a CLIP with open_clip: model, preprocessing and tokenizer, on their device and checked."""

from __future__ import annotations

import platform
from dataclasses import replace
from pickle import UnpicklingError
from threading import Lock
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from curate.clip.availability import WITHOUT_HUB, check_available
from curate.clip.check import check_scorer, slowdown
from curate.clip.config import ClipConfig
from curate.clip.models import (
    LOCAL,
    batch_size,
    check,
    check_tag,
    device,
    fingerprint,
    label,
    local_folder,
    precision,
    weights_file,
)
from curate.clip.scorer import ClipScorer, Work
from curate.run.progress import Bar
from curate.run.schema import UserError

if TYPE_CHECKING:
    import torch


# Measured times differ by some percent.
_NO_GAIN = 1.1


class LazyClip:
    """A CLIP that is loaded when it is first asked for; pickled it is what it was made with."""

    def __init__(self, config: ClipConfig, known_as: str = "", draft: bool = False) -> None:
        """``known_as``: its ``fingerprint`` with ``draft``, under which its scores are kept; "" for any."""
        self._config, self._known_as, self._draft = config, known_as, draft
        self._lock = Lock()
        self.loaded: ClipScorer | None = None

    def __call__(self) -> ClipScorer:
        """The scorer, see ``load_clip``.

        Raises:
            UserError: as there; or it is another one in this process than where it is known.
        """
        with self._lock:
            if self.loaded is None:
                if self._known_as not in ("", fingerprint(self._config, self._draft)):
                    raise UserError(
                        f"clip.name={self._config.name} is another model on {platform.node()} than where the command was "
                        "typed: its files, or versions of torch, open_clip and the like, differ, and so would its scores. "
                        "Install the same on all machines"
                    )
                self.loaded = load_clip(self._config)
        return self.loaded

    def __reduce__(self) -> tuple[type[LazyClip], tuple[ClipConfig, str, bool]]:
        return LazyClip, (self._config, self._known_as, self._draft)


def load_clip(config: ClipConfig, on: str | torch.device | None = None) -> ClipScorer:
    """Load and check a model, and print its device; ``on`` overrides ``config.device``.

    With bf16 and fp16 the weights themselves are converted, all but the layer norms (open_clip's
    ``precision``); autocast would convert them again for every batch.

    Raises:
        UserError: the weights cannot be loaded (an unknown tag, no network) or belong to another
            name; or the device is not available.
        RuntimeError: this device computes wrongly in this precision.
    """
    import open_clip
    import torch

    check(config)
    config = config if on is None else replace(config, device=str(on))
    local = config.name.startswith(LOCAL)
    name = f"{LOCAL}{local_folder(config)}" if local else config.name
    if not local:
        check_tag(config)
        check_available(config)
    target, dtype = torch.device(device(config)), precision(config)
    model, preprocess = _load(config, name, target, dtype)
    scorer = ClipScorer(
        name=label(config),
        fingerprint=fingerprint(config),
        model=model,
        preprocess=preprocess,
        tokenizer=open_clip.get_tokenizer(name),
        device=target,
        dtype={"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32),
        batch_size=batch_size(config, target.type),
    )
    check_scorer(replace(scorer, texts=Work()))  # a warm-up is not part of the rate
    Bar.write(f"clip: {scorer.name} on {target}, {dtype}, batches of {scorer.batch_size}")
    if target.type == "cpu" and dtype != "fp32" and (times := slowdown(scorer.dtype)) > _NO_GAIN:
        Bar.write(
            f"clip: on this processor a linear layer in {dtype} takes {times:.1f} times as long as in "
            "fp32; clip.precision=fp32 may be faster"
        )
    return scorer


def _load(config: ClipConfig, name: str, target: torch.device, dtype: str) -> tuple[Any, Any]:
    """The model, in evaluation mode on its device, and its preprocessing."""
    import open_clip
    import torch

    if dtype == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # on by default; it has 10 bits of mantissa
        torch.set_float32_matmul_precision("highest")  # the environment may have chosen less
    file = weights_file(config)
    tag = None if config.name.startswith(LOCAL) else str(file or config.pretrained)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=tag, device=target, precision=dtype, weights_only=True
        )
    except (RuntimeError, OSError, UnpicklingError, SafetensorError) as error:
        if file is not None:
            # Not torch's own words: they say how to run what a pickle holds.
            raise UserError(
                f"clip.pretrained={config.pretrained} does not hold the weights of {config.name}, or more than "
                "tensors (OpenAI's own .pt files are programs and are not opened; take open_clip's copy of them, "
                "clip.pretrained=openai)"
            ) from error
        raise UserError(
            f"clip.name={config.name}: the weights cannot be loaded ({error}). {WITHOUT_HUB}"
        ) from error
    return model.eval(), preprocess
