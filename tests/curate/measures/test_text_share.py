"""The share of text against words that were written at a known place and size."""

import sys
import threading

import pytest
from PIL import Image, ImageDraw, ImageFont

from curate.measures import text_share
from curate.run.schema import UserError


def poster(size, lines, font_px):
    """A green picture with white lines of text, and the share that their lines cover."""
    image = Image.new("RGB", size, (60, 120, 80))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(font_px)
    area = 0
    for number, line in enumerate(lines):
        place = (size[0] * 0.08, size[1] * 0.1 + number * font_px * 1.8)
        draw.text(place, line, fill="white", font=font)
        area += draw.textlength(line, font=font) * sum(font.getmetrics())
    return image, area / (size[0] * size[1])


@pytest.fixture
def detector():
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("scale", [1, 2])
def test_written_words_cover_what_they_cover(detector, scale):
    lines = ["HELLO WORLD", "twice the text", "and a third line"]
    image, share = poster((512 * scale, 512 * scale), lines, 48 * scale)
    found = text_share.measure(image)["text_share"]
    assert found == pytest.approx(share, rel=0.2)
    one, _ = poster((512 * scale, 512 * scale), lines[:1], 48 * scale)
    assert 0 < text_share.measure(one)["text_share"] < found


def test_no_text_no_share(detector):
    for size in ((300, 20), (64, 64), (3, 2)):
        assert text_share.measure(Image.new("RGB", size, "grey")) == {"text_share": 0.0}


def test_photographs_with_and_without_text(detector, shared):
    def share(name):
        image = Image.open(shared / f"coco_mini/train2017/{name}.jpg").convert("RGB")
        return text_share.measure(image)["text_share"]

    assert share("000000196393") == 0  # a cat and a bird, all of which the detector calls text
    assert share("000000213148") == 0  # potatoes before a keyboard
    files = sorted((shared / "coco_mini").glob("*2017/*.jpg"))
    signs = [share(file.stem) for file in files[3:6] if file.parent.name == "train2017"]
    assert len(signs) == 3  # the names of a place, a birthday cake and a book
    assert all(0.005 < found < 0.2 for found in signs)


def test_threads_do_not_disturb_each_other(detector):
    pictures = [poster((256, 256), ["word " * n], 30)[0] for n in (1, 2)]
    alone = [text_share.measure(picture) for picture in pictures]
    found = [[], []]
    threads = [
        threading.Thread(
            target=lambda i=i: found[i].extend(text_share.measure(pictures[i]) for _ in range(3))
        )
        for i in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[alone[0]] * 3, [alone[1]] * 3]


def test_without_the_package_the_message_says_what_to_type(monkeypatch):
    monkeypatch.setattr(text_share, "_engines", threading.local())
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(UserError, match="pip install rapidocr onnxruntime"):
        text_share.measure(Image.new("RGB", (8, 8)))
