"""Pixels of any colour space as sRGB: embedded ICC profiles, CMYK, Lab, 16 bits, transparency."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}
_SAME = 2  # of 255: a profile that changes no colour by more counts as sRGB, of which there are many near copies


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as sRGB, 8 bits a channel, transparency laid over white.

    An embedded profile is applied with the perceptual intent, as browsers do; one that cannot be
    read, or that is for another mode, is ignored. CMYK without a profile is taken as ideal inks, ``(255 - ink) * (255 - black) / 255``; 16 bits are scaled by 257.

    Raises:
        ValueError: Pillow cannot convert this mode to RGB.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # convert() would clip 16 bits to white
        values = np.asarray(image, dtype=np.int64) // 257
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        shown = _managed(layer.convert("RGB"), profile)
        shown.putalpha(layer.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), shown).convert("RGB")
    if image.mode not in _MODE_OF_SPACE.values():
        image = image.convert("L" if image.mode == "1" else "RGB")
    return _managed(image, profile)


def _managed(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB, CMYK or LAB image as RGB, by its profile where that is usable."""
    mode, transform = _transform(profile) if profile else ("", None)
    if mode == "RGB" and image.mode == "L":  # a grey image with an RGB profile
        image = image.convert("RGB")
    if transform is not None and mode == image.mode:
        return transform.apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, Any]:
    """The mode a profile is for, and its transform to sRGB; None where it is broken, or sRGB itself."""
    try:
        opened: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODE_OF_SPACE.get(opened.profile.xcolor_space.strip().upper(), "")
        if not mode:
            return "", None
        # LittleCMS would interpolate greys between 33 points, which is coarse in the shadows.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "", None
    return mode, None if _keeps_colours(transform, mode) else transform


def _keeps_colours(transform: Any, mode: str) -> bool:
    """Whether a transform gives the same as Pillow's plain conversion for all colours of a grid."""
    if mode not in ("L", "RGB"):
        return False
    grid = np.arange(256, dtype=np.uint8)[None]
    if mode == "RGB":
        grid = np.stack(np.meshgrid(*[grid[0, ::15]] * 3), -1).reshape(1, -1, 3)
    plain = Image.fromarray(grid)
    moved = np.asarray(transform.apply(plain), int) - np.asarray(plain.convert("RGB"), int)
    return bool(np.abs(moved).max() <= _SAME)
