"""Colour against closed forms: profiles written here byte by byte, and what their formulas say."""

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from curate.measures.decode import decode

# Columns X, Y, Z of R, G, B adapted to D50: of sRGB (IEC 61966-2-1, ICC), of Adobe RGB (1998).
SRGB = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
D50 = (0.9642, 1.0, 0.8249)


def xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def icc(space, pcs, kind, tags):
    """An ICC profile of version 2.4 (ICC.1:2001): header, tag table, tags on 4-byte bounds."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"t\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": xyz(D50), b"cprt": b"text\0\0\0\0t\0", **tags}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + xyz(D50)[8:] + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def matrix_profile(columns, gamma):
    tags = {name: xyz(columns[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return icc(
        b"RGB ", b"XYZ ", b"mntr", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(gamma))
    )


def ink_profile(corners):
    """CMYK to Lab by a table of the 16 corners, (2, 2, 2, 2, 3) bytes; black is the last axis."""
    identity = bytes(range(256))
    head = b"mft1\0\0\0\0" + struct.pack(">4B", 4, 3, 2, 0)
    head += struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = head + identity * 4 + corners.astype(np.uint8).tobytes() + identity * 3
    return icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def srgb_from_linear(linear):
    linear = linear.clip(0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curved


def srgb_from_lab(lab):
    """CIE 1976 L*a*b* of D50 as sRGB, 0 ... 255."""
    lightness, a, b = np.moveaxis(np.asarray(lab, float), -1, 0)
    f = np.stack(
        [
            (lightness + 16) / 116 + a / 500,
            (lightness + 16) / 116,
            (lightness + 16) / 116 - b / 200,
        ],
        -1,
    )
    values = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    return srgb_from_linear(values @ np.linalg.inv(SRGB).T)


def through(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return np.asarray(decode(stream.getvalue()), int)


@pytest.fixture
def colours():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "L"])
def test_wide_gamut_is_brought_to_srgb(colours, mode):
    image = colours.convert(mode)
    plain = np.asarray(image.convert("RGB"), float)
    linear = (plain / 255) ** (563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB).T
    found = through(image, icc_profile=matrix_profile(ADOBE, 563 / 256))
    np.testing.assert_allclose(found, srgb_from_linear(linear), atol=2)
    if mode != "L":
        assert np.abs(found - plain).max() > 40


def test_colours_are_managed_before_they_are_laid_over_white():
    half = Image.new("RGBA", (1, 1), (0, 200, 0, 128))
    solid = through(Image.new("RGB", (1, 1), (0, 200, 0)), icc_profile=matrix_profile(ADOBE, 2.2))
    found = through(half, icc_profile=matrix_profile(ADOBE, 2.2))
    np.testing.assert_allclose(found, solid * 128 / 255 + 255 * 127 / 255, atol=1)


def test_a_profile_longer_than_pillow_takes_from_a_png(colours):
    tags = {name: xyz(ADOBE[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(2.2))
    long = icc(b"RGB ", b"XYZ ", b"mntr", tags | {b"note": b"text\0\0\0\0" + bytes(2_000_000)})
    expected = through(colours, "TIFF", icc_profile=long)
    assert (expected != np.asarray(colours)).any()
    np.testing.assert_array_equal(through(colours, icc_profile=long), expected)


def test_a_grey_profile(colours):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    profile = icc(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve(1.0)})
    found = through(ramp, icc_profile=profile)[0, :, 0]
    np.testing.assert_allclose(found, srgb_from_linear(np.arange(256) / 255), atol=1)


def test_inks_by_their_profile():
    rng = np.random.default_rng(1)
    corners = rng.integers(60, 200, (2, 2, 2, 2, 3))
    corners[..., 1:] = rng.integers(108, 148, (2, 2, 2, 2, 2))  # colours that sRGB has
    corners[0, 0, 0, 0], corners[1, 1, 1, 1] = (255, 128, 128), (0, 128, 128)  # paper, all inks
    inks = np.array(list(np.ndindex(2, 2, 2, 2)), np.uint8) * 255
    image = Image.frombytes("CMYK", (16, 1), inks.tobytes())
    found = through(image, "TIFF", icc_profile=ink_profile(corners))[0]
    flat = corners.reshape(16, 3).astype(float)
    lab = np.stack([flat[:, 0] * 100 / 255, flat[:, 1] - 128, flat[:, 2] - 128], -1)
    np.testing.assert_allclose(found, srgb_from_lab(lab), atol=2)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_without_a_profile_are_ideal(kind):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:] = 255, 0, 64, 32
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = through(Image.frombytes("CMYK", (16, 16), ink.tobytes()), kind, **options)
    ideal = (255 - ink[0, 0, :3].astype(float)) * (255 - 32) / 255
    np.testing.assert_allclose(found[8, 8], ideal, atol=3)


def test_lab():
    values = [(50, 0, 0), (70, 20, 30), (40, -20, 10), (100, 0, 0)]
    stored = np.array(
        [(round(lightness * 2.55), a % 256, b % 256) for lightness, a, b in values], np.uint8
    )
    found = through(Image.frombytes("LAB", (4, 1), stored.tobytes()), "TIFF")[0]
    exact = [(stored[i, 0] / 2.55, a, b) for i, (_, a, b) in enumerate(values)]
    np.testing.assert_allclose(found, srgb_from_lab(exact), atol=2)


def test_sixteen_bits_keep_their_greys():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None]
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(through(Image.fromarray(ramp), kind)[0, :, 1], ramp[0] // 257)


@pytest.mark.parametrize("profile", [b"not a profile", b"", "srgb", "inks", "cut"])
def test_a_broken_foreign_or_srgb_profile_changes_no_pixel(colours, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = {"srgb": srgb, "inks": ink_profile(np.full((2, 2, 2, 2, 3), 90)), "cut": srgb[:200]}
    found = through(colours, icc_profile=made.get(profile, profile))
    np.testing.assert_array_equal(found, np.asarray(colours))


def test_srgb_without_a_profile_is_bit_identical_for_ever(colours):
    """Hashes of what was decoded before profiles were applied: scores must not move."""
    half = colours.copy()
    half.putalpha(Image.linear_gradient("L").resize(colours.size))
    pictures = {"RGB": colours, "RGBA": half, "L": colours.convert("L"), "1": colours.convert("1")}
    pictures |= {"P": colours.quantize(16), "LA": half.convert("LA")}
    found = {
        mode: hashlib.sha256(through(p).astype(np.uint8)).hexdigest()[:12]
        for mode, p in pictures.items()
    }
    assert found == PINNED


PINNED = {
    "RGB": "01e3a5815448",
    "RGBA": "516e8429b705",
    "L": "544143e863a4",
    "1": "8081e398d957",
    "P": "5749b76a24ac",
    "LA": "dc4e7f0e7256",
}
