"""The share of an image that readable text covers, by PP-OCR as package ``rapidocr`` ships it.

An image that is similar to its caption because it shows the caption as text teaches a generator to
write, not to draw: Maini et al. (2024), "T-MARS: Improving Visual Representations by Circumventing Text Feature
Learning", found such text in about 40 % of LAION's images.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from curate.measures.measure import ImageMeasure
from curate.run.schema import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# The longer side of the copy that is searched: a fifth of the time of the detector's own 736 px or more.
SIDE_PX = 512

_engines = threading.local()  # one for each thread: an engine keeps the image it works on


def measure(image: Image) -> dict[str, float]:
    """Area of the union of all boxes of text divided by the image's area, 0 ... 1.

    The detector alone takes keyboards, tiles and whole images for text; a box counts where two
    characters or more are recognised in it with rapidocr's own confidence of 0.5.

    Raises:
        UserError: the package ``rapidocr`` or ``onnxruntime`` is not installed.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    copy = image.convert("RGB")
    copy.thumbnail((SIDE_PX, SIDE_PX))
    bgr = np.ascontiguousarray(np.asarray(copy)[:, :, ::-1])
    found = _engine()(bgr, use_det=True, use_cls=False, use_rec=True)
    covered = Image.new("1", copy.size)
    draw = ImageDraw.Draw(covered)
    if found.boxes is not None and found.txts is not None:
        for box, text in zip(found.boxes.tolist(), found.txts, strict=True):
            if len(text.strip()) > 1:
                draw.polygon([(x, y) for x, y in box], fill=1)
    return {"text_share": float(np.asarray(covered).mean())}


def _engine() -> Any:
    """This thread's engine, on one core: images are measured in parallel already."""
    if not hasattr(_engines, "engine"):
        try:
            package = import_module("rapidocr")
        except ImportError as error:
            raise UserError(
                'measuring text_share needs a reader of text; type: pip install "darkroom[ocr]"  '
                "(or: pip install rapidocr onnxruntime)"
            ) from error
        threads = "EngineConfig.onnxruntime"
        _engines.engine = package.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Det.limit_type": "max",
                "Det.limit_side_len": SIDE_PX,
                f"{threads}.intra_op_num_threads": 1,
                f"{threads}.inter_op_num_threads": 1,
            }
        )
    return _engines.engine


MEASURE = ImageMeasure("text_share", ("text_share",), measure, package="rapidocr")
