"""Encoded bytes to pixels: the header alone, or the whole image as upright sRGB; and back to bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from curate.measures import heif, libtiff, png
from curate.measures.colour import to_rgb
from curate.measures.unreadable import UnreadableImage

MAX_PIXELS = 89_478_485  # Pillow's limit for a decompression bomb, and LAION's
_NEEDS_A_PROGRAM = ("EPS", "WMF")  # Pillow hands these to an interpreter
_T = TypeVar("_T")
_CUT_SHORT = ("truncated", "not enough image data", "expected to read")
_ORIENTATION = 0x0112
_TURNS = {  # Exif 2.32, tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]

warnings.filterwarnings("ignore", module=r"PIL\.")  # the ledger says what is wrong with a file


def probe(data: bytes) -> tuple[int, int, str]:
    """Width and height in pixels when upright, and Pillow's name of the format, from the header alone.

    Raises:
        UnreadableImage: not an image, or more pixels than ``MAX_PIXELS``.
    """
    return _reading(data, _header)


def decode(data: bytes, draft_px: int | None = None) -> Image.Image:
    """The first frame as sRGB, turned upright by its EXIF tag, transparency laid over white.

    With ``draft_px`` a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if each side stays at least
    ``draft_px``, in a third of the time. The pixels then differ a little, so the fingerprint of what is
    measured from them must contain it.

    Raises:
        UnreadableImage: whatever the decoder raises, for the data is to blame.
    """
    return _reading(data, lambda image: _pixels(image, draft_px))


def _reading(data: bytes, read: Callable[[Image.Image], _T]) -> _T:
    """What ``read`` makes of the opened image; of a PNG that is refused, without its notes."""
    try:
        with _open(data) as image:
            return read(image)
    except UnreadableImage:
        bare, profile = png.essential(data)
        if bare == data:
            raise
    with _open(bare) as image:
        if profile:
            image.info["icc_profile"] = profile
        return read(image)


def _header(image: Image.Image) -> tuple[int, int, str]:
    width, height = image.size
    if _turn(image) in _QUARTER_TURNS:
        width, height = height, width
    return width, height, image.format or ""


def _pixels(image: Image.Image, draft_px: int | None) -> Image.Image:
    try:
        turn = _turn(image)
        if draft_px is not None:
            image.draft(None, (draft_px, draft_px))
        image.load()
        return to_rgb(image if turn is None else image.transpose(turn))
    except Exception as error:  # decoders raise anything on bytes made to break them
        raise UnreadableImage(_reason(error)) from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an opened, not yet loaded image upright; None where nothing does, or the EXIF is broken.

    In a PNG the tag counts only before the pixels: to read one behind them, all have to be decoded.
    Pillow itself turns a TIFF as it loads, and gives its upright size.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as in decode
        return None


def _open(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImage("empty file")
    libtiff.silence()
    heif.prepare(data)
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:  # as in decode
        raise UnreadableImage(_reason(error)) from error
    if image.format in _NEEDS_A_PROGRAM:
        raise UnreadableImage("not an image of pixels")
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage("too many pixels")
    return image


def _reason(error: Exception) -> str:
    """One of few reasons, equal for all files of its kind; Pillow gives it in the message only."""
    message = str(error).lower()
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if any(words in message for words in _CUT_SHORT):
        return "truncated"
    return f"broken ({type(error).__name__})"


def is_plain(data: bytes) -> bool:
    """Whether any reader sees in a file what ``decode`` does: no EXIF turn, no CMYK, no transparency.

    A PNG with notes that Pillow refuses is not plain: other programs that use Pillow cannot read it. A
    colour profile may be there: without it the shades differ a little, but to encode the image again
    would cost detail.

    Raises:
        UnreadableImage: not an image.
    """
    return _reading(data, _looks_plain) and _is_read_by_pillow(data)


def _looks_plain(image: Image.Image) -> bool:
    opaque = image.mode in ("RGB", "L") and "transparency" not in image.info
    return opaque and _turn(image) is None


def _is_read_by_pillow(data: bytes) -> bool:
    """Whether Pillow accepts the picture with all its notes."""
    try:
        with _open(data) as image:
            if png.has_notes_behind_the_pixels(data):
                image.load()
    except Exception:  # as in decode
        return False
    return True


def encode(image: Image.Image, extension: str, jpeg_quality: int) -> bytes:
    """The image as ``jpg`` or ``png`` bytes, without metadata."""
    stream = io.BytesIO()
    if extension == "jpg":
        image.save(stream, "JPEG", quality=jpeg_quality)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()
