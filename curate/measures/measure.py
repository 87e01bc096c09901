"""What an optional measure is: the columns it fills, the function that fills them, its model's package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 100  # letters of a text that is measured; a picture could fill it with megabytes
CountTokens = Callable[[Sequence[str]], list[int]]
"""Captions (N) => how many tokens the CLIP's tokenizer makes of each."""


@dataclass(frozen=True, slots=True)
class ImageMeasure:
    """A measure of an upright RGB image: one number for each of ``columns``.

    Attributes:
        name: as ``annotate.measures`` lists it.
        columns: the names of the numbers.
        measure: the function; it loads its model when it is first called.
        package: whose release decides the numbers; "" for arithmetic of this project.
    """

    name: str
    columns: tuple[str, ...]
    measure: Callable[[Image], dict[str, float]]
    package: str = ""


@dataclass(frozen=True, slots=True)
class FileMeasure:
    """A measure of a picture's encoded bytes: one text for each of ``columns``, None where there is none.

    It raises nothing for the bytes' sake, whatever they are, and needs little memory: several run at once.

    Attributes as in ``ImageMeasure``.
    """

    name: str
    columns: tuple[str, ...]
    measure: Callable[[bytes], dict[str, str | None]]
    package: str = ""


@dataclass(frozen=True, slots=True)
class CaptionMeasure:
    """A measure of N captions: N values for each of ``columns``. Attributes as in ``ImageMeasure``."""

    name: str
    columns: tuple[str, ...]
    measure: Callable[[Sequence[str], CountTokens], dict[str, list[Any]]]
    package: str = ""
