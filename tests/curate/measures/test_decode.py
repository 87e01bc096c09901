"""Decoding against independent implementations, and on files that were made to break decoders."""

import csv
import io
import re
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from curate.measures.decode import MAX_PIXELS, UnreadableImage, decode, encode, is_plain, probe
from curate.measures.phash import phashes, pixels_sha256

END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of a PNG


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((80, 60), Image.Resampling.BICUBIC)


# What EXIF says of each orientation: how to turn the stored array upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(picture, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, kind, exif=exif)
    upright = np.asarray(decode(data))
    np.testing.assert_array_equal(upright, UPRIGHT[orientation](np.asarray(picture)))
    assert probe(data)[:2] == upright.shape[1::-1]


def test_transparency_is_laid_over_white():
    half_red = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    half_red.putpixel((1, 0), (0, 0, 0, 0))
    pixels = np.asarray(decode(encoded(half_red)))
    np.testing.assert_allclose(pixels, [[[255, 127, 127], [255, 255, 255]]], atol=1)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(ramp))))[0, :, 0].tolist() == [0, 100, 255]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore")
def test_too_many_pixels_is_known_from_the_header():
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (9_500, 20_000):  # Pillow warns of the one and refuses the other
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"\0" * 64)
        with pytest.raises(UnreadableImage, match="too many pixels"):
            probe(bomb)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty file"), (b"<html>not found</html>", "not an image")]
)
def test_reasons(data, reason):
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_truncated_files_say_so(picture):
    for kind in ("PNG", "JPEG"):
        data = encoded(picture, kind)
        with pytest.raises(UnreadableImage, match=r"truncated|broken"):
            decode(data[: len(data) // 2])


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_phash_is_the_definition(picture):
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    terms = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            for y in range(32):
                row = np.cos(np.pi * v * (2 * np.arange(32) + 1) / 64)
                terms[u, v] += np.cos(np.pi * u * (2 * y + 1) / 64) * (grey[y] * row).sum()
    bits = "".join("1" if term > np.median(terms) + 16 else "0" for term in terms.ravel())
    assert phashes(picture)[0] == f"{int(bits, 2):016x}"


def test_phash_survives_resizing_and_tells_pictures_apart(picture):
    own, small = phashes(picture)[0], phashes(picture.resize((160, 120)))[0]
    assert distance(own, small) <= 4
    assert distance(own, phashes(ImageOps.flip(picture))[0]) > 16


def test_the_hash_of_the_mirror_image_is_that_of_the_mirrored_picture(picture):
    assert phashes(ImageOps.mirror(picture)) == phashes(picture)[::-1]
    assert distance(*phashes(picture)) > 16


def test_a_symmetric_drawing_and_its_jpeg_have_one_hash():
    half = Image.new("RGB", (32, 64), "white")
    ImageDraw.Draw(half).ellipse((8, 10, 55, 50), fill="crimson", outline="black")
    drawing = Image.new("RGB", (64, 64))
    drawing.paste(half, (0, 0))
    drawing.paste(ImageOps.mirror(half), (32, 0))
    shown = phashes(decode(encoded(drawing, "JPEG", quality=60)))
    assert distance(phashes(drawing)[0], shown[0]) <= 1
    assert phashes(drawing)[0] == phashes(drawing)[1]


def test_pixels_identify_what_is_shown_not_how_it_is_stored(picture):
    small, large = encoded(picture, compress_level=9), encoded(picture, compress_level=0)
    assert small != large
    assert pixels_sha256(decode(small)) == pixels_sha256(decode(large))
    turned = picture.transpose(Image.Transpose.ROTATE_180)
    assert pixels_sha256(turned) != pixels_sha256(picture)


def test_encode_png_loses_nothing(picture):
    assert pixels_sha256(decode(encode(picture, "png", 95))) == pixels_sha256(picture)
    assert probe(encode(picture, "jpg", 95)) == (80, 60, "JPEG")


# What is wrong with a file, in Pillow's words of 13.0, and the reason that the ledger gives.
REASONS = {
    "truncated|not enough image data|Expected to read": "truncated",
    "DecompressionBomb": "too many pixels",
    "UnidentifiedImage": "not an image",
}

# Pillow refuses them for a note, or for frames behind the first.
NOTES_ASIDE = {"png_decompression_dos.png": "1x1", "apng_chunk_no_fctl.png": "128x64"}


def expected_reason(row):
    """The reason that a row of the table of odd files asks for; "" where Pillow reads it."""
    if row["size"] and np.prod([int(side) for side in row["size"].split("x")]) > MAX_PIXELS:
        return "too many pixels"  # known before anything is loaded
    error = row["open"] or ("" if row["load"] == "ok" else row["load"])
    for words, reason in REASONS.items():
        if re.search(words, error, re.IGNORECASE):
            return reason
    return "broken" if error else ""


@pytest.mark.filterwarnings("ignore")
def test_every_odd_file_is_read_or_refused_with_its_reason(shared):
    folder = shared / "odd_images"
    with (folder / "expected_pillow_13_0.csv").open() as stream:
        # Which layers of a PSD are parsed at once has changed between Pillow's releases.
        rows = [row for row in csv.DictReader(stream) if not row["name"].endswith("overflow.psd")]
    assert len(rows) > 150
    for row in rows:
        if size := NOTES_ASIDE.get(row["name"].partition("_images_")[2]):
            row.update(open="", load="ok", rgb_size=size)
    wrong, reasons = [], Counter()
    for row in rows:
        expected = expected_reason(row)
        try:
            image = decode((folder / row["name"]).read_bytes())
            found, same = "", f"{image.width}x{image.height}" == row["rgb_size"]
            same = same and image.mode == "RGB"
        except UnreadableImage as error:
            found, same = error.reason.split(" (")[0], True
        reasons[found] += 1
        if found != expected or not same:
            wrong.append((row["name"], expected, found))
    assert wrong == []
    assert sum(reasons.values()) == len(rows)
    assert set(reasons) == {"", "truncated", "broken", "too many pixels", "not an image"}


def test_a_truncated_photograph_is_called_truncated(picture):
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(picture, kind)
        with pytest.raises(UnreadableImage) as caught:
            decode(data[: len(data) // 2])
        assert caught.value.reason == ("truncated" if kind != "WEBP" else "broken (OSError)")


def test_no_file_has_a_program_run():
    with pytest.raises(UnreadableImage, match="not an image of pixels"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_is_no_broken_picture(picture):
    data = encoded(picture, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(picture))


def test_draft_reads_a_large_jpeg_at_a_fraction_of_its_size():
    rng = np.random.default_rng(0)
    blocks = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    data = encoded(blocks.resize((1600, 1200), Image.Resampling.BICUBIC), "JPEG", quality=90)
    full, draft = decode(data), decode(data, draft_px=224)
    assert (full.size, draft.size) == ((1600, 1200), (400, 300))
    small = [np.asarray(image.resize((224, 224)), float) for image in (full, draft)]
    assert 0 < np.abs(small[0] - small[1]).mean() < 2
    portrait = Image.Exif()
    portrait[0x0112] = 6
    turned = encoded(blocks.resize((1600, 1200)), "JPEG", exif=portrait)
    assert decode(turned, draft_px=224).size == (300, 400)
    png = encoded(blocks.resize((640, 480)))
    assert pixels_sha256(decode(png, draft_px=32)) == pixels_sha256(decode(png))


def test_a_png_s_tag_behind_the_pixels_turns_it_nowhere(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    early = encoded(picture, exif=exif)
    at, end = early.index(b"eXIf") - 4, early.index(b"IDAT") - 4
    chunk = early[at : at + 12 + int.from_bytes(early[at : at + 4], "big")]
    late = early.replace(chunk, b"")
    late = late[: -len(END)] + chunk + END
    assert at < end
    assert decode(early).size == probe(early)[:2] == picture.size[::-1]
    assert decode(late).size == probe(late)[:2] == picture.size
    assert (is_plain(early), is_plain(late)) == (False, True)
