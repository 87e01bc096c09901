"""Whether a loaded CLIP computes correctly on this device, and whether its precision is fast on this CPU."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

    from curate.clip.scorer import ClipScorer

CAPTION = "a photo of a red square"
# 1 - cosine between the two ways. Rounding alone gives up to 1e-6 in fp32 and 1e-4 in bf16; kernels
# that are broken for a precision, a batch size or a driver give tenths, or NaN.
_FP32_TOLERANCE, _LOW_TOLERANCE = 1e-4, 5e-3


def check_scorer(scorer: ClipScorer) -> None:
    """Encode an image alone and in a batch, a caption at its own length and padded, and compare.

    The four embeddings must have unit length, and the two of the image and the two of the caption must
    agree. It takes as long as three images and two captions.

    Raises:
        RuntimeError: they do not; it names the device, the precision and what to type.
    """
    import torch

    low = scorer.dtype != torch.float32
    tolerance = _LOW_TOLERANCE if low else _FP32_TOLERANCE
    pixels = torch.stack([scorer.preprocess(image) for image in _images()])
    ways = {
        "an image alone and in a batch": (
            scorer._run(scorer._encode_pixels, pixels[:1]),
            scorer._run(scorer._encode_pixels, pixels)[:1],
        ),
        "a caption alone and padded": (
            scorer.encode_texts([CAPTION]),
            scorer._run(scorer.model.encode_text, scorer.tokenizer([CAPTION])),
        ),
    }
    for what, (one, other) in ways.items():
        lengths = np.linalg.norm(np.concatenate([one, other]), axis=1)
        difference = 1 - float((one * other).sum())
        # In this form NaN fails, too.
        if not (np.abs(lengths - 1).max() <= 1e-3 and difference <= tolerance):
            dtype = str(scorer.dtype).removeprefix("torch.")
            raise RuntimeError(
                f"{scorer.name} computes wrongly on {scorer.device} in {dtype}: {what} differ by "
                f"{difference:.1e} (1 - cosine), lengths {lengths.tolist()}; type "
                f"{'clip.precision=fp32' if low else 'clip.device=cpu'}, or update driver and torch"
            )


def slowdown(dtype: torch.dtype) -> float:
    """How many times as long a linear layer of ViT-B/32's takes in ``dtype`` as in fp32 on this processor.

    Only processors with matrix units (Intel's AMX) gain much by half precision. The others convert or
    emulate it. A list of a processor's features does not tell, so it is measured.
    """
    import torch

    def best(kind: torch.dtype) -> float:
        features, weight = torch.ones(512, 768, dtype=kind), torch.ones(3072, 768, dtype=kind)
        seconds = []
        for _ in range(4):
            started = perf_counter()
            torch.nn.functional.linear(features, weight)
            seconds.append(perf_counter() - started)
        return min(seconds)

    return best(dtype) / best(torch.float32)


def _images() -> list[Image.Image]:
    """A red square on a ramp of greys, and the ramp alone; 64 x 64 px."""
    ramp = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    square = ramp.copy()
    square.paste((200, 30, 30), (16, 16, 48, 48))
    return [square, ramp]
