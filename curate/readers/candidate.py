"""`Candidate`, one image with its captions as a reader offers it, and how its key and captions are made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.readers.companions import Companion

MAX_KEY_CHARACTERS = 95  # USTAR names end at 100, the extension included

_FEW_DIGITS, _MANY_DIGITS = 8, 16  # of a name's hash
KEY = re.compile(r"[A-Za-z0-9_-]+")
"""What a key looks like, see :func:`key_of`."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LINE_END = re.compile(r"\r\n?|\n")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


@dataclass(slots=True)
class Candidate:
    """One image with its captions, not yet measured or filtered; its bytes are loaded when needed.

    Nobody changes one. It is not frozen, since a frozen dataclass takes eight times as long to make.

    Attributes:
        key: unique over the data set, see :func:`key_of`.
        captions: () for an image without any; an empty caption stays, and a rule drops it.
        source: the data set's name.
        location: where the source finds the bytes, see ``Source.load``; "" where there are none.
        version: changes when the bytes may have changed; found without reading them.
        columns: what else the source says of the image, for the ledger: url, licence, ...
        companions: pictures that come beside it, at most one of a kind.
    """

    key: str
    captions: tuple[str, ...]
    source: str
    location: str
    version: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()


def key_of(name: str) -> str:
    """A key for ``name`` that is safe in a tar: letters, digits, ``_`` and ``-``, no dots.

    WebDataset cuts keys at the first dot. ``/`` becomes ``--``. Where any other character is
    replaced, hex digits of the name's hash are added, so that a key depends on its own name only.
    Eight digits are enough where ASCII characters were replaced, since few names differ in those
    alone. Where letters of other scripts or the end of a long name are left out, thousands of names
    may share the rest and only the hash differs: sixteen digits then. The chance that any two of N
    names share a key is N^2 / 2^65: 3 in a hundred million for a million names.

    >>> key_of("cats/0001")
    'cats--0001'
    >>> key_of("a.b") == key_of("a b")
    False
    """
    if name.isalnum() and name.isascii() and len(name) <= MAX_KEY_CHARACTERS:
        return name
    joined = name.replace("/", "--")
    safe = _UNSAFE.sub("-", joined).strip("-")
    if safe == joined and "--" not in name and len(safe) <= MAX_KEY_CHARACTERS:
        return safe
    fits = 0 < len(safe) < MAX_KEY_CHARACTERS - _FEW_DIGITS
    digits = _FEW_DIGITS if fits and name.isascii() else _MANY_DIGITS
    encoded = name.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(encoded, digest_size=digits // 2).hexdigest()
    return f"{safe[: MAX_KEY_CHARACTERS - digits - 1]}-{digest}".lstrip("-")


def first_line(text: str) -> tuple[str, bool]:
    """The first line of ``text`` that is not empty, clean, and whether there are more; "" if all are empty.

    >>> first_line("\\n a cat \\r\\nmore")
    ('a cat', True)
    """
    lines = [line for line in map(clean_caption, _LINE_END.split(text)) if line]
    return (lines[0] if lines else ""), len(lines) > 1


def clean_caption(text: str) -> str:
    """One line without control characters and byte order marks; runs of white space become one space.

    >>> clean_caption(" a cat\\non a  mat ")
    'a cat on a mat'
    """
    # Of all white space only the space is printable, and of control characters and marks none.
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text
    return " ".join(_CONTROL.sub("", text).split())
