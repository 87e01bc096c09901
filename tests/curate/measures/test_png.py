"""A PNG's notes, which Pillow may refuse, never cost the picture; damage in the picture itself is found."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from curate.measures import png
from curate.measures.decode import UnreadableImage, decode, is_plain, probe
from curate.measures.phash import pixels_sha256

END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.fixture
def picture():
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((80, 60), Image.Resampling.BICUBIC)


def chunk(kind, body, checksum=None):
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")


MUCH = zlib.compress(b"a" * 3_000_000)
NOTES = {
    "checksum": chunk(b"tEXt", b"Comment\0note", checksum=1),
    "ztxt": chunk(b"zTXt", b"workflow\0\0" + MUCH),
    "itxt": chunk(b"iTXt", b"parameters\0\1\0\0\0" + MUCH),
    "profile": chunk(b"iCCP", b"profile\0\0" + MUCH),
    "many notes": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 1_000_000)) * 68,
    "short": chunk(b"pHYs", b"\0"),
    "method": chunk(b"zTXt", b"Comment\0\7abc"),
    "unknown profile": chunk(b"iCCP", b"profile\0\7abc"),
    "animation": chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fdAT", b"\0\0\0\1abc"),
}


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("before", ["IDAT", "IEND"])
def test_no_note_in_a_png_loses_the_picture(picture, note, before):
    clean = encoded(picture)
    at = clean.index(before.encode()) - 4
    data = clean[:at] + NOTES[note] + clean[at:]
    assert pixels_sha256(decode(data)) == pixels_sha256(picture)
    assert probe(data) == (80, 60, "PNG")
    try:
        Image.open(io.BytesIO(data)).load()
        reads_it = True
    except (ValueError, SyntaxError, OSError):
        reads_it = False
    assert is_plain(data) == reads_it


def test_a_png_without_its_notes_keeps_turn_transparency_and_profile():
    exif = Image.Exif()
    exif[0x0112] = 6
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))  # no profile for RGB
    options = {"exif": exif, "transparency": (255, 0, 0), "icc_profile": swapped.tobytes()}
    clean = encoded(Image.new("RGB", (4, 2), "red"), **options)
    at = clean.index(b"IDAT") - 4
    data = clean[:at] + NOTES["ztxt"] + clean[at:]
    assert decode(data).size == (2, 4)
    assert decode(data).getpixel((0, 0)) == (255, 255, 255)
    bare, profile = png.essential(data)
    assert profile == swapped.tobytes()
    assert (b"zTXt" in bare, b"tRNS" in bare, b"eXIf" in bare) == (False, True, True)


def test_damage_in_the_pixels_is_still_found(picture):
    clean = encoded(picture)
    at = clean.index(b"IDAT")
    damaged = clean[: at + 40] + bytes([clean[at + 40] ^ 1]) + clean[at + 41 :]
    for data in (damaged, damaged[:at] + damaged[at:].replace(END, NOTES["ztxt"] + END)):
        with pytest.raises(UnreadableImage, match=r"broken|truncated"):
            decode(data)
