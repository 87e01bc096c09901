import io
import random
import struct
import time
import zlib

import pytest
from PIL import Image, PngImagePlugin

from curate.fetch.answer import STORED
from curate.fetch.picture import by_header

N = 20_000_000
NOISE = random.Random(0).randbytes(3 * 400 * 400)


def chunk(kind, body):
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))


PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
GIF = b"GIF89a\x08\0\x08\0\0\0\0"
BOX = struct.pack(">I", 8) + b"aaaa"
JP2 = bytes.fromhex("0000000c6a5020200d0a870a") + struct.pack(">I", 20) + b"ftypjp2 \0\0\0\0jp2 "
SLOW = {
    "zeros": b"\xff\xd8\xff\xe0" + bytes(N),
    "no-markers": b"\xff\xd8" + b"\xff\0" * (N // 2),
    "fill-bytes": b"\xff\xd8" + b"\xff" * N,
    "segments": b"\xff\xd8" + b"\xff\xe2\0\2" * (N // 4),
    "rubbish-between": b"\xff\xd8" + (b"\xff\xfe\0\2" + bytes(4000)) * (N // 4004),
    "chunks": PNG + chunk(b"tEXt", b"") * (N // 12),
    "comments": GIF + b"!\xfe" + b"\1a" * (N // 2),
    "extensions": GIF + b"!\xfe\0" * (N // 3),
    "rubbish": GIF + b"a" * N,
    "boxes": JP2 + BOX * (N // 8),
    "ppm": b"P6\n" + b"#\n" * (N // 2),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n" + b"%%a: b\n" * (N // 7),
    "icon": b"\0\0\1\0\xff\xff" + bytes(N),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_header_that_never_comes_is_given_up_soon(name):
    started = time.process_time()
    assert by_header(SLOW[name], 10**9).state in {"damaged", "not_a_picture"}
    assert (
        time.process_time() - started < 1
    )  # 0.1 on the machine that this was written on; it was 1 to 15


def test_a_header_behind_long_notes_is_found():
    image = Image.frombytes("RGB", (400, 400), NOISE)
    bodies = {}
    for name, options in {
        "JPEG": {"quality": 99, "icc_profile": NOISE * 9, "comment": NOISE[:60_000]},
        "PNG": {"pnginfo": PngImagePlugin.PngInfo()},
        "GIF": {"comment": NOISE[:100_000]},
        "JPEG2000": {},
        "BMP": {},
        "TIFF": {},
        "WEBP": {"lossless": True},
    }.items():
        if "pnginfo" in options:
            options["pnginfo"].add_text("a", "b" * 5_000_000)
            options["pnginfo"].add_text("c", "d" * 100)
        image.save(stream := io.BytesIO(), name, **options)
        bodies[name] = stream.getvalue()
    for name, body in bodies.items():
        assert len(body) > 100_000, name
        answer = by_header(body, 10**9)
        assert (answer.state, answer.width, answer.height) == (STORED, 400, 400), name
        assert answer.body is body
