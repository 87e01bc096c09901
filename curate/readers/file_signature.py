"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

HEAD_BYTES = 512
"""How many bytes of a file `identify` needs."""

EMPTY = "an empty file"
PARQUET = "a parquet file"

_SIGNATURES = {
    b"PAR1": PARQUET,
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\xfd7zXZ": "compressed by xz",
    b"PK\x03\x04": "a zip archive",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` downloads the file itself",
}
_PICTURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),  # JPEG 2000
)
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # of AVIF and HEIF
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<error")


def is_picture(head: bytes) -> bool:
    """Whether the file that begins with ``head``, 12 bytes or more, is a picture of a common type with a signature."""
    riff = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return head.startswith(_PICTURES) or riff or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def identify(head: bytes) -> str:
    """What the file that begins with ``head`` is, as a phrase to follow "is"; "" for text."""
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head.lstrip().lower().startswith(_MARKUP):
        return "a page of HTML or XML, as servers send instead of a file"
    if not head.strip():
        return EMPTY
    return "binary data" if b"\0" in head else ""
