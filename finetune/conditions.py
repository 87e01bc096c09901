"""What a ControlNet is trained to follow (``method.condition``): edges of the picture, or the picture beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.run.companions import CONTROL
from finetune.condition_kinds import CANNY

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from finetune.cache import Recipe
    from finetune.cache.framing import View


def of_picture(picture: Image.Image) -> Tensor:
    """The condition [1, H, W] uint8 of a picture that is cropped and resized: its edges."""
    import torch

    from finetune.canny import edges

    return torch.from_numpy(edges(picture))[None]


def of_file(picture: Image.Image) -> Tensor:
    """The same of a condition that is given: its colours [3, H, W] uint8."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def of(condition: str, picture: Image.Image) -> Tensor:
    """The condition [1 or 3, H, W] uint8 of a picture of its size."""
    return of_picture(picture) if condition == CANNY else of_file(picture)


def is_drawing(picture: Image.Image) -> bool:
    """Whether a picture that someone gives is in black and white alone: a drawing of edges, and nothing to find them in."""
    import numpy as np

    pixels = np.array(picture.convert("RGB"))
    return set(np.unique(pixels)) <= {0, 255} and bool((pixels == pixels[..., :1]).all())


def recipe(condition: str, resolution: int) -> Recipe:
    """How conditions are made for a model, at the resolution of the pictures and cropped like them."""
    from curate.measures.decode import decode
    from finetune import canny
    from finetune.cache import Recipe

    def make(data: bytes, view: View) -> Tensor:
        picture = decode(data)
        return of(condition, view.cropped(picture.size, b"").cut(picture))

    if condition == CANNY:
        return Recipe(CONTROL, None, f"canny {canny.LOW} {canny.HIGH}", make, resolution**2)
    return Recipe(CONTROL, CONTROL, "rgb", make, 3 * resolution**2)
