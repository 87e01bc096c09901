"""The typed schema of the groups ``clip/`` and ``heads``, with the range of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from curate.run.schema import PATH, check, register


@dataclass
class ClipConfig:
    """Which CLIP scores the pairs.

    Attributes:
        name: a model of open_clip, or ``local-dir:FOLDER``.
        pretrained: open_clip's tag of its weights, or a file of them.
        precision: fp32, bf16, fp16, or auto (bf16 on CUDA, else fp32).
        device: auto, cpu, mps, cuda or cuda:N.
        batch_size: images or captions at a time; null for the device's default; halved when memory runs out.
    """

    name: str = field(default=MISSING, metadata=PATH)
    pretrained: str | None = field(default=None, metadata=PATH)
    precision: str = "fp32"
    device: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check(
            self.precision in ("auto", "fp32", "bf16", "fp16"),
            "clip.precision",
            self.precision,
            "auto (bf16 on CUDA, else fp32), fp32, bf16, fp16",
        )
        known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device)
        check(known is not None, "clip.device", self.device, "auto, cpu, mps, cuda, cuda:N")
        size = self.batch_size
        check(size is None or size > 0, "clip.batch_size", size, "null (by device), or > 0")


@dataclass
class HeadConfig:
    """A small model on CLIP's image embeddings, from a file of the user's; its column is ``head_<name>``.

    Attributes:
        path: a safetensors file, or a ``.pt``/``.pth`` of tensors only.
        sha256: of the file; null accepts any.
        kind: linear (LAION's aesthetic V1 and V2) or nsfw (LAION's detector), see ``heads``.
    """

    path: str = field(metadata=PATH)
    sha256: str | None = None
    kind: str = "linear"

    @classmethod
    def of(cls, name: str, values: Any) -> HeadConfig:
        """From a mapping: Hydra cannot add a typed entry to a mapping from the command line."""
        known = [known.name for known in fields(cls)]
        sound = isinstance(values, Mapping) and "path" in values and set(values) <= set(known)
        check(sound, f"heads.{name}", values, f"{', '.join(known)}, of which path is needed")
        return cls(**values)

    def __post_init__(self) -> None:
        check(self.kind in ("linear", "nsfw"), "heads.NAME.kind", self.kind, "linear, nsfw")
        digest = self.sha256
        sound = digest is None or re.fullmatch("[0-9a-f]{64}", digest) is not None
        check(sound, "heads.NAME.sha256", digest, "null, or 64 hex digits in lower case")


register(ClipConfig, "clip", "clip")
