"""The typed schema of ``conf/sample.yaml``, with the range of every value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from curate.clip.config import ClipConfig
from curate.run.schema import PATH, UserError, check, register
from finetune.config import RunConfig
from finetune.drawing.config import SamplerConfig
from finetune.models.config import ModelConfig

DEFAULT_STRENGTH = 0.6
NAMED_CHECKPOINTS = ("base", "exported", "kept", "last", "all")
MOST_SEEDS = 1000
_SEEDS = 2**63  # above what torch takes, as torch counts


@dataclass
class SampleConfig:
    """All of ``python -m evaluate.sample``.

    Attributes:
        prompt: a text, or a list of texts. prompt_file: a file of prompts, or a list of files.
        limit: so many of the first prompts.
        negative_prompt: for every prompt.
        checkpoints: steps and ``NAMED_CHECKPOINTS``; one, or a list.
        lora_scale: factors on the trained update; a number, or a list.
        model: a base model without a run, instead of ``run``.
        seeds: a list, or how many, from 0.
        width, height: in pixels; null is the model's resolution.
        clip_skip: which layer of the text encoder counts, from the one that the pipeline takes, which is 1; null is the
            one that was trained with (``model.clip_skip``).
        image: to start from. strength: the share of the noise that it gets.
        control: the picture that a ControlNet draws from.
        best_of: pictures drawn for each seed, of which the one most similar to its prompt is kept.
        batch_size: pictures drawn at once; null is 8, and fewer above 256 px, see ``finetune.at_once``.
        out: folder of the results; null is ``evaluate/sample`` in the run.
        device: auto (the GPU if there is one), cpu, cuda, cuda:N, mps or xpu.
    """

    prompt: Any = field(default=None, metadata=PATH)
    prompt_file: Any = field(default=None, metadata=PATH)
    limit: int | None = None
    negative_prompt: str = field(default="", metadata=PATH)
    run: RunConfig = field(default_factory=RunConfig)
    checkpoints: Any = "exported"
    lora_scale: Any = 1.0
    model: ModelConfig | None = None
    sampler: SamplerConfig = MISSING
    seeds: Any = 1
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    image: str | None = field(default=None, metadata=PATH)
    strength: float | None = None
    control: str | None = field(default=None, metadata=PATH)
    best_of: int = 1
    clip: ClipConfig = MISSING
    batch_size: int | None = None
    out: str | None = field(default=None, metadata=PATH)
    device: str = "auto"

    def __post_init__(self) -> None:
        self.prompt = _texts("prompt", self.prompt)
        self.prompt_file = _texts("prompt_file", self.prompt_file)
        self.checkpoints = [_checkpoint(value) for value in _items(self.checkpoints)]
        check(
            len(self.checkpoints) > 0, "checkpoints", "[]", "steps, base, exported, kept, last, all"
        )
        self.lora_scale = _scales(self.lora_scale)
        self.seeds = _seeds(self.seeds)
        check(self.best_of >= 1, "best_of", self.best_of, ">= 1")
        skip = self.clip_skip
        check(skip is None or skip >= 1, "clip_skip", skip, "null, or >= 1")
        size = self.batch_size
        check(size is None or size >= 1, "batch_size", size, "null, or >= 1")
        check(self.limit is None or self.limit >= 1, "limit", self.limit, "null, or >= 1")
        for name in ("width", "height"):
            check_side(name, getattr(self, name), 8)
        known = re.fullmatch(r"auto|cpu|mps|xpu|cuda(:\d+)?", self.device)
        check(known is not None, "device", self.device, "auto, cpu, cuda, cuda:N, mps, xpu")
        self._check_start()
        if self.negative_prompt and self.sampler != MISSING and self.sampler.guidance_scale <= 1:
            raise UserError(
                f"negative_prompt has no effect with sampler.guidance_scale={self.sampler.guidance_scale:g}, which "
                "draws without guidance. Type sampler.guidance_scale=5, or remove negative_prompt"
            )

    def _check_start(self) -> None:
        """The picture to start from, and how much of it is drawn again."""
        if self.image is None and self.strength is not None:
            raise UserError(
                f"strength={self.strength:g} says how much of a picture is drawn again, and there is no picture; "
                "type image=FILE as well, or remove strength"
            )
        if self.image is None:
            return
        self.strength = DEFAULT_STRENGTH if self.strength is None else self.strength
        check(0 < self.strength <= 1, "strength", self.strength, "0 < strength <= 1")
        steps = self.sampler.steps if self.sampler != MISSING else 1000
        if int(steps * self.strength) < 1:
            raise UserError(
                f"strength={self.strength:g} of sampler.steps={steps} is less than one step; type "
                f"sampler.steps={math.ceil(1 / self.strength)} or a larger strength"
            )


def check_side(name: str, value: int | None, multiple: int) -> None:
    """Raise a ``UserError`` if a side in pixels is not a positive multiple of what the VAE needs."""
    if value is None or (value > 0 and value % multiple == 0):
        return
    near = max(multiple, round(value / multiple) * multiple)
    raise UserError(f"{name}={value} is no multiple of {multiple} above 0; type {name}={near}")


def _items(value: Any) -> list[Any]:
    """The entries of a list, of a text with commas, or the one value; none of null."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]").split(",") if part.strip()]
    return _listed(value)


def _texts(key: str, value: Any) -> list[str]:
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        raise UserError(
            f"{key} holds a list that cannot be read; quote each text in it, and the whole: "
            f'\'{key}=["one, two","three (four)"]\''
        )
    return [str(text) for text in _listed(value) if text is not None]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _checkpoint(value: Any) -> int | str:
    """A step, or a name of ``NAMED_CHECKPOINTS``."""
    text = str(value).removeprefix("step-")
    if text.isdecimal():
        return int(text) or "base"
    check(
        text in NAMED_CHECKPOINTS, "checkpoints", value, ", ".join(NAMED_CHECKPOINTS) + ", a step"
    )
    return text


def _scales(value: Any) -> list[float]:
    found = []
    for item in _items(value):
        try:
            found.append(float(item))
        except (TypeError, ValueError):
            found.append(math.nan)
        sound = not isinstance(item, bool) and math.isfinite(found[-1])
        check(sound, "lora_scale", item, "a number, or several, such as [0,0.5,1]")
    check(len(found) > 0, "lora_scale", "[]", "a number, or several, such as [0,0.5,1]")
    return list(dict.fromkeys(found))


def _seeds(value: Any) -> list[int]:
    """The seeds that a list names, or as many as a number says."""
    accepted = f"1 ... {MOST_SEEDS} of them, or a list such as [0,1,2]"
    items, is_list = (
        _items(value),
        isinstance(value, list | tuple) or "," in str(value) or "[" in str(value),
    )
    check(len(items) > 0, "seeds", value, accepted)
    whole = all(re.fullmatch(r"\d+", str(item)) for item in items)
    check(whole and all(int(item) < _SEEDS for item in items), "seeds", value, accepted)
    seeds = [int(item) for item in items] if is_list else list(range(int(items[0])))
    check(0 < len(seeds) <= MOST_SEEDS, "seeds", value, accepted)
    return list(dict.fromkeys(seeds))


register(SampleConfig, "sample")
register(SamplerConfig, "sampler", "sampler")
