"""What a body is by its bytes: a picture to keep, another thing, or a picture that is not whole."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from curate.fetch import headers
from curate.fetch.answer import STORED, Answer, Request
from curate.fetch.opt_out import OptOut
from curate.measures import decode
from curate.measures.unreadable import UnreadableImage
from curate.readers import file_signature

EXTENSIONS = {
    **{"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "AVIF": "avif"},
    **{"HEIF": "heic", "BMP": "bmp", "TIFF": "tif", "JPEG2000": "jp2"},
}
"""Pillow's name of a format -> the extension of its files."""

_END_OF_JPEG, _END_OF_PNG, _END_OF_GIF = b"\xff\xd9", b"IEND\xaeB`\x82", b";"
_NEAR_END = (
    4096  # bytes within which the end of a picture is looked for: notes of programs may follow it
)
_MOST_BOXES = 10_000  # of a file; those of pictures have a dozen

MOST_DECODED = 36_000_000
"""Pixels that are decoded to see whether a picture is whole: one to four seconds."""

_TOO_MANY = "too many pixels"  # in the words of curate.measures.decode


def by_header(body: bytes, max_pixels: int) -> Answer:
    """The Answer for a body, by its first bytes and its header: no name and no Content-Type counts.

    Returns:
        A stored picture, or one of the states ``not_a_picture``, ``too_many_pixels`` and ``damaged``.
    """
    if (front := headers.readable(body)) is None:
        return Answer("damaged", "more before its pixels than any picture has")
    try:
        width, height, name = decode.probe(front)
    except UnreadableImage as error:
        head = body[: file_signature.HEAD_BYTES]
        if error.reason == _TOO_MANY:
            return Answer("too_many_pixels")
        if file_signature.is_picture(head):
            return Answer("damaged", error.reason)
        return Answer("not_a_picture", file_signature.identify(head) or "text")
    if name not in EXTENSIONS:
        return Answer("not_a_picture", f"a file of the type {name}")
    if width * height > max_pixels:
        return Answer("too_many_pixels")
    return Answer(STORED, body=body, extension=EXTENSIONS[name], width=width, height=height)


def seems_whole(body: bytes, extension: str) -> bool:
    """Whether a picture has its end where it belongs, found without decoding it.

    False says nothing yet: notes may follow the end, and some formats have none; see `looked_through`.
    """
    end = body[-_NEAR_END:]
    if extension == "jpg":
        return _END_OF_JPEG in end
    if extension == "png":
        return _END_OF_PNG in end
    if extension == "gif":
        return end.rstrip(b"\0").endswith(_END_OF_GIF)
    if extension == "webp":
        return int.from_bytes(body[4:8], "little") + 8 <= len(body)
    if extension in ("avif", "heic"):
        return _has_whole_boxes(body)
    return False


def _has_whole_boxes(body: bytes) -> bool:
    """Whether the boxes of an ISO base media file (ISO/IEC 14496-12, 4.2) end where the body does."""
    start = 0
    for _ in range(_MOST_BOXES):
        if start >= len(body):
            break
        size = int.from_bytes(body[start : start + 4], "big")
        if size == 1:  # the size follows the type, in 8 bytes
            size = int.from_bytes(body[start + 8 : start + 16], "big")
        if size < 8:  # 0: up to the end of the file, wherever that was
            return False
        start += size
    return start == len(body)


def looked_through(answer: Answer) -> Answer:
    """A stored picture whose end is not where it belongs: the same Answer, or ``damaged``.

    Takes up to a second or two. A JPEG is searched for its end; others are decoded.
    """
    if answer.extension == "jpg":
        return answer if headers.has_end_of_jpeg(answer.body) else _damaged(answer, "truncated")
    if answer.width * answer.height > MOST_DECODED:
        return _damaged(answer, "without an end where it belongs, and too large to decode for it")
    try:
        decode.decode(answer.body)
    except UnreadableImage as error:
        return _damaged(answer, error.reason)
    return answer


def _damaged(answer: Answer, error: str) -> Answer:
    return _without_body(answer, "damaged", error)


def checked(answer: Answer, request: Request, opt_out: OptOut) -> Answer:
    """The Answer after its bytes were compared with the hashes known.

    Args:
        answer: of any state; only stored ones change.
        request: with the hashes that it must have, none without ``fetch.verify``; sha256 counts where it gives both.
        opt_out: lists of pictures that are not kept.

    Returns:
        The same, or ``opted_out`` or ``changed``.
    """
    if answer.state != STORED:
        return answer
    expected = request.sha256 or request.md5
    sha256 = md5 = ""
    if opt_out.has_sha256 or (expected and request.sha256):
        sha256 = hashlib.sha256(answer.body).hexdigest()
    if opt_out.has_md5 or (expected and not request.sha256):
        md5 = hashlib.md5(answer.body, usedforsecurity=False).hexdigest()
    if any(digest and opt_out.has_picture(digest) for digest in (sha256, md5)):
        return _without_body(answer, "opted_out", "the picture's hash is listed")
    if expected and expected.lower() != (sha256 if request.sha256 else md5):
        return _without_body(answer, "changed", "")
    return answer


def _without_body(answer: Answer, state: str, error: str) -> Answer:
    return replace(answer, state=state, error=error, body=b"", extension="", width=0, height=0)
