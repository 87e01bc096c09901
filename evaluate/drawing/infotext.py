"""The settings of a picture as AUTOMATIC1111's web interface writes them into a PNG.

The text chunk ``parameters`` holds the prompt, a line with the negative prompt, and a line of
``Name: value`` pairs. Civitai and other readers of PNGs parse it, and ComfyUI makes a workflow of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

CHUNK = "parameters"
NEGATIVE = "Negative prompt: "
SAMPLER_NAMES = {
    "dpm_solver++": "DPM++ 2M",
    "unipc": "UniPC",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "ddim": "DDIM",
    "ddpm": "DDPM",  # not in that interface; ComfyUI calls it so
}
SCHEDULE_TYPES = {"trailing": "SGM Uniform", "linspace": "Uniform"}  # "leading" has no name there

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@dataclass(frozen=True)
class Infotext:
    """What the chunk says.

    Attributes:
        values: by name, such as ``Steps`` and ``CFG scale``, in the order in which they are written.
    """

    prompt: str
    negative: str
    values: Mapping[str, str] = field(default_factory=dict)


def write(info: Infotext) -> str:
    """The text of the chunk.

    The line of the negative prompt is written even if it is empty: without it ComfyUI reads no prompt.
    """
    pairs = ", ".join(f"{name}: {_quoted(value)}" for name, value in info.values.items())
    return f"{info.prompt}\n{NEGATIVE}{info.negative}\n{pairs}"


def read(text: str) -> Infotext:
    """The same again, also where the negative prompt is left out or the prompt has several lines."""
    *lines, last = text.strip().split("\n")
    found = _PAIR.findall(last)
    if len(found) < 3:  # no settings, but the last line of a prompt
        lines, found = [*lines, last], []
    starts = [n for n, line in enumerate(lines) if line.strip().startswith(NEGATIVE.strip())]
    end = starts[0] if starts else len(lines)
    negative = "\n".join(lines[end:]).strip().removeprefix(NEGATIVE.strip()).strip()
    values = {name: _unquoted(value) for name, value in found}
    return Infotext("\n".join(line.strip() for line in lines[:end]), negative, values)


def values_of(
    *,
    sampler: str,
    spacing: str,
    steps: int,
    guidance: float,
    seed: int,
    width: int,
    height: int,
    model: str,
    model_hash: str,
    clip_skip: int,
    strength: float | None,
    more: Mapping[str, str],
) -> dict[str, str]:
    """The pairs in the interface's order and words.

    Args:
        model_hash: 10 hex digits.
        clip_skip: of :func:`clip_skip_of`; 1, the interface's default, is left out, as it does.
        strength: of a picture that was started from; None is left out.
        more: pairs of our own, behind the interface's.
    """
    found: dict[str, object] = {
        "Steps": steps,
        "Sampler": SAMPLER_NAMES[sampler],
        "Schedule type": SCHEDULE_TYPES.get(spacing),
        "CFG scale": f"{guidance:g}",
        "Seed": seed,
        "Size": f"{width}x{height}",
        "Model hash": model_hash,
        "Model": model,
        "Denoising strength": None if strength is None else f"{strength:g}",
        "Clip skip": None if clip_skip == 1 else clip_skip,
        "RNG": "CPU",  # where the noise is drawn; the interface's default is the GPU
        **more,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def clip_skip_of(clip_skip: int, text_encoders: Collection[str]) -> int:
    """The interface's number, which counts from the last layer; SDXL's pipeline takes the layer before it.

    Args:
        clip_skip: counted from the layer that the pipeline takes. text_encoders: the names of the pipeline's.

    >>> clip_skip_of(2, ["text_encoder"]), clip_skip_of(2, ["text_encoder", "text_encoder_2"])
    (2, 3)
    """
    return clip_skip + (clip_skip > 1 and "text_encoder_2" in text_encoders)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value[0] == value[-1] == '"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value
