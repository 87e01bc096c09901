"""The share of a picture that is covered by text that can be read, by PP-OCR as rapidocr packs it.

What similarity a picture owes to letters that spell its caption teaches a generator to write, not to
draw: Maini et al. (2024), "T-MARS: Improving Visual Representations by Circumventing Text Feature
Learning", found such text in about 40 % of LAION's pictures.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from curate.run.cli import UserError

COLUMNS = ("text_share",)
SIDE_PX = (
    512  # of the copy that is searched: a fifth of the time of the detector's own 736 px or more
)

_engines = threading.local()  # the engine keeps the picture it works on


def measure(image: Image.Image) -> dict[str, float]:
    """Area of the union of all boxes of text over the picture's area, 0 ... 1.

    The detector alone takes keyboards, tiles and whole pictures for text; a box counts where two
    characters or more can be read in it with rapidocr's own confidence of 0.5.

    Raises:
        UserError: the package ``rapidocr`` or ``onnxruntime`` is not there.
    """
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
    """This thread's engine, on one core: the threads that decode are the parallel ones."""
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
