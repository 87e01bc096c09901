"""HEIC needs a package: with it the picture is read, without it the reason says what to type."""

import io
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from PIL import Image

from curate.measures import heif
from curate.measures.decode import decode, is_plain, probe
from curate.measures.unreadable import UnreadableImage


def box(*brands):
    body = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


@pytest.fixture
def not_installed(monkeypatch):
    heif._registered.cache_clear()
    monkeypatch.setattr(heif, "find_spec", lambda name: None)
    yield
    heif._registered.cache_clear()


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"avif", b"heic"), (b"hevc",)])
def test_without_the_package_the_reason_says_what_to_type(brands):
    with pytest.raises(UnreadableImage) as caught:
        probe(box(*brands))
    assert caught.value.reason == "cannot be read (HEIC, type: pip install pillow-heif)"


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("brands", [(b"avif", b"mif1"), (b"mif1", b"avif"), (b"isom", b"mp41")])
def test_other_files_of_this_kind_do_not_need_it(brands):
    with pytest.raises(UnreadableImage, match=r"not an image|broken|truncated"):
        decode(box(*brands))


def test_heic_is_read_and_written_as_another_format():
    pillow_heif = pytest.importorskip("pillow_heif")
    assert isinstance(heif.find_spec("pillow_heif"), ModuleSpec)
    heif._registered.cache_clear()
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((80, 60), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    pillow_heif.from_pillow(picture).save(stream, quality=95)
    data = stream.getvalue()
    assert probe(data) == (80, 60, "HEIF")
    off = np.abs(np.asarray(decode(data), int) - np.asarray(picture, int))
    assert off.mean() < 8
    assert is_plain(data)  # so the extension decides that it is encoded again
