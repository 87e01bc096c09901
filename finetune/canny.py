"""Edges of a picture, which a ControlNet can be trained on without any file: Canny's (1986), by OpenCV, an extra."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from curate.run.schema import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

LOW, HIGH = (
    100,
    200,
)  # of the gradient, of 8-bit pixels: those of the published ControlNet's demonstration


def refuse_absent(option: str) -> None:
    """Refuse what needs OpenCV where it is not installed.

    Args:
        option: that needs it, as it is typed.

    Raises:
        UserError: says what to type.
    """
    if find_spec("cv2") is None:
        raise UserError(
            f'{option} needs OpenCV to find edges; type: pip install "darkroom[control]"  (or: pip install '
            "opencv-python-headless)"
        )


def edges(picture: Image.Image) -> np.ndarray:
    """[H, W] uint8 of a picture: 255 on an edge, 0 elsewhere.

    Raises:
        UserError: OpenCV is not installed.
    """
    refuse_absent("a ControlNet of method.condition=canny")
    cv2 = import_module("cv2")  # which has no types
    import numpy as np

    return cv2.Canny(np.array(picture.convert("RGB")), LOW, HIGH)
