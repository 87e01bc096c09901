import hashlib
import io
import random
import time

import pytest
from PIL import Image

from curate.fetch import headers
from curate.fetch import picture as picture_by_bytes
from curate.fetch.answer import STORED, Answer, Request
from curate.fetch.config import MOST_PIXELS, FetchConfig
from curate.fetch.opt_out import OptOut
from curate.fetch.picture import by_header, checked, looked_through, seems_whole
from curate.measures import decode
from curate.run.schema import UserError
from tests.curate.fetch.misbehaving import picture

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000")
MANY = 10**9


def encoded(name, size=(40, 30)):
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(stream, name)
    return stream.getvalue()


def judged(body, max_pixels=MANY):
    answer = by_header(body, max_pixels)
    if answer.state == STORED and not seems_whole(body, answer.extension):
        return looked_through(answer)
    return answer


@pytest.mark.parametrize(
    ("name", "extension"),
    [*zip(FORMATS, ("jpg", "png", "gif", "webp", "avif", "bmp", "tif", "jp2"), strict=True)],
)
def test_a_picture_is_told_by_its_bytes(name, extension):
    body = encoded(name)
    answer = judged(body)
    assert (answer.state, answer.extension, answer.body) == (STORED, extension, body)
    assert (answer.width, answer.height) == (40, 30)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_part_of_a_picture_is_damaged(name, share):
    body = encoded(name, (200, 150))
    assert judged(body[: int(len(body) * share)]).state == "damaged"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_common_formats_are_seen_to_be_whole_without_their_pixels(name):
    body = encoded(name)
    extension = by_header(body, MANY).extension
    assert seems_whole(body, extension)
    assert not seems_whole(body[:-5], extension)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_the_end_of_a_jpeg_is_found_without_its_pixels(monkeypatch, options):
    draw, stream = random.Random(0), io.BytesIO()
    noise = Image.frombytes("RGB", (300, 200), draw.randbytes(180_000))
    thumbnail = b"Exif\0\0" + encoded("JPEG")
    noise.save(stream, "JPEG", quality=95, exif=thumbnail, comment=b"\xff\xd9", **options)
    body = stream.getvalue()
    monkeypatch.setattr(headers, "_PIECE", 1000)
    monkeypatch.setattr(decode, "decode", None)
    for notes in (b"", bytes(9000), draw.randbytes(9000), body + bytes(9000)):
        assert looked_through(by_header(body + notes, MANY)).state == STORED
    for length in (1500, len(body) // 2, len(body) - 2, len(body) - 1):
        answer = looked_through(by_header(body[:length], MANY))
        assert (answer.state, answer.error, answer.body) == ("damaged", "truncated", b"")


@pytest.mark.parametrize(
    "body", [b"\xff\xd8" + b"\xff" * 10**7, b"\xff\xd8" + b"\xff\xfe\0\2" * 10**6]
)
def test_bytes_made_to_take_long_are_searched_soon(body):
    started = time.process_time()
    assert looked_through(Answer(STORED, body=body, extension="jpg")).state == "damaged"
    assert time.process_time() - started < 2  # 0.1 on the machine that this was written on


def test_many_boxes_are_not_all_looked_at():
    body = encoded("AVIF") + (8).to_bytes(4, "big") + b"free"
    assert seems_whole(body, "avif")
    started = time.process_time()
    assert not seems_whole(body + ((8).to_bytes(4, "big") + b"free") * 10**6, "avif")
    assert time.process_time() - started < 0.2  # 0.01 on the machine that this was written on


def test_what_would_take_long_to_decode_is_not(monkeypatch):
    body = encoded("BMP", (40, 30))
    monkeypatch.setattr(picture_by_bytes, "MOST_DECODED", 1200)
    assert judged(body).state == STORED
    monkeypatch.setattr(picture_by_bytes, "MOST_DECODED", 1199)
    answer = judged(body)
    assert answer.state == "damaged"
    assert "too large to decode" in answer.error


def test_notes_behind_a_picture_do_no_harm():
    body = encoded("JPEG", (200, 150)) + bytes(10_000)
    assert not seems_whole(body, "jpg")
    assert judged(body).state == STORED
    assert judged(encoded("GIF") + bytes(3)).state == STORED
    assert judged(encoded("WEBP") + bytes(3)).state == STORED


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<!DOCTYPE html><html>", "a page of HTML or XML, as servers send instead of a file"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "a page of HTML"),
        (b"", "an empty file"),
        (b"not found", "text"),
        (b'{"error": 404}', "text"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "text"),
        (b"\0\0\1\xb3\x10\0\x10\0\0\0\0\0", "a file of the type MPEG"),
        (bytes(100), "binary data"),
    ],
)
def test_another_thing_is_named(body, error):
    answer = judged(body)
    assert answer.state == "not_a_picture"
    assert answer.error.startswith(error)
    assert answer.body == b""


def test_pixels_are_counted_before_any_is_decoded():
    assert judged(encoded("PNG", (40, 30)), max_pixels=1200).state == STORED
    assert judged(encoded("PNG", (40, 31)), max_pixels=1200).state == "too_many_pixels"


def test_a_limit_that_decoding_does_not_have_is_refused():
    assert MOST_PIXELS == decode.MAX_PIXELS == FetchConfig().max_pixels
    with pytest.raises(UserError, match=r"type fetch\.max_pixels=89478485"):
        FetchConfig(max_pixels=MOST_PIXELS + 1)
    stream = io.BytesIO()
    Image.new("1", (9459, 9459)).save(stream, "PNG")
    assert MOST_PIXELS >= 9459**2
    assert by_header(stream.getvalue(), MOST_PIXELS).state == STORED


def test_a_turned_picture_has_its_upright_size():
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(stream, "JPEG", exif=exif)
    answer = judged(stream.getvalue())
    assert (answer.width, answer.height) == (30, 40)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, outside of tests silenced
@pytest.mark.parametrize("name", FORMATS)
def test_broken_bytes_end_in_a_state(name):
    draw = random.Random(name)
    for _ in range(60):
        body = bytearray(encoded(name))
        for _ in range(draw.choice((1, 5, 50))):
            body[draw.randrange(len(body))] = draw.randrange(256)
        assert judged(bytes(body), 10**6).state in {
            STORED,
            "damaged",
            "not_a_picture",
            "too_many_pixels",
        }


def test_a_sound_jpeg_costs_little():
    body = picture(1, kb=30)
    durations = []
    for _ in range(50):
        started = time.perf_counter()
        assert seems_whole(body, by_header(body, MANY).extension)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.5e-3  # 0.05 ms on the machine that this was written on


BODY = picture(1)
MD5, SHA256 = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()


def request(**hashes):
    return Request(0, 0, "http://h.example/", **hashes)


@pytest.mark.parametrize(
    ("hashes", "state"),
    [
        ({}, STORED),
        ({"md5": MD5}, STORED),
        ({"md5": MD5.upper()}, STORED),
        ({"sha256": SHA256}, STORED),
        ({"md5": "0" * 32, "sha256": SHA256}, STORED),
        ({"md5": "0" * 32}, "changed"),
        ({"sha256": "0" * 64}, "changed"),
        ({"md5": MD5, "sha256": "0" * 64}, "changed"),
    ],
)
def test_the_hash_of_the_table_is_compared(hashes, state):
    answer = judged(BODY)
    found = checked(answer, request(**hashes), OptOut(FetchConfig()))
    assert found.state == state
    assert found.body == (BODY if state == STORED else b"")


@pytest.mark.parametrize("digest", [MD5, SHA256])
def test_a_listed_picture_is_not_kept(tmp_path, digest):
    path = tmp_path / "hashes.txt"
    path.write_text(digest)
    opt_out = OptOut(FetchConfig(opt_out_hashes=str(path)))
    assert checked(judged(BODY), request(), opt_out).state == "opted_out"
    assert checked(judged(BODY), request(sha256=SHA256), opt_out).state == "opted_out"
    assert checked(judged(picture(2)), request(), opt_out).state == STORED


def test_other_answers_are_not_looked_at():
    answer = Answer("not_found")
    assert checked(answer, request(md5="0" * 32), OptOut(FetchConfig())) is answer
