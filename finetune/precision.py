"""The precision in which the U-Net computes while a run is judged; everything else stays fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import nn

from curate.run.schema import UserError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def computing_in(precision: str, unet: nn.Module) -> Iterator[None]:
    """Let a U-Net compute in ``precision`` inside a ``with`` block, as training in mixed precision does.

    Args:
        precision: ``no`` is fp32; ``bf16`` and ``fp16`` are torch's autocast, with fp32 output.
        unet: fp32.
    """
    if precision == "no":
        yield
        return
    plain, kind = unet.forward, next(unet.parameters()).device.type

    def forward(*args: Any, **options: Any) -> Any:
        with torch.autocast(kind, _TYPES[precision]):
            return convert_to_fp32(plain(*args, **options))

    unet.forward = forward
    try:
        yield
    finally:
        del unet.forward  # the class has its own


def refuse(precision: str, device: torch.device) -> None:
    """Refuse fp16 on a CPU, which computes it slowly or not at all.

    Raises:
        UserError: says what to type.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision=fp16 needs a GPU; type precision=bf16 or precision=no")


def mark(precision: str) -> dict[str, str]:
    """What a fingerprint says of it: nothing of fp32, so that results of earlier versions stay."""
    return {} if precision == "no" else {"precision": precision}
