"""The two nouns of curation: a candidate, as a reader offers it, and a sample, as a shard holds it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_KEY_CHARACTERS = 95  # USTAR names end at 100, the extension included

_FEW_DIGITS, _MANY_DIGITS = 8, 16  # of a name's hash
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image with its captions, before anything was decided; its bytes stay where they are.

    Attributes:
        key: unique over the data set, see :func:`key_of`.
        captions: none for an image that came without; an empty one stays and is dropped by name.
        source: the data set's name.
        location: where the source finds the bytes, see ``readers.Source.load``.
        version: changes whenever the bytes may have changed, and costs nothing to know.
        columns: what the source offers beside, for the ledger: url, licence, ...
    """

    key: str
    captions: tuple[str, ...]
    source: str
    location: str
    version: str
    columns: Mapping[str, Any] = field(default_factory=dict)


def key_of(name: str) -> str:
    """A key for ``name`` that survives tar files: letters, digits, ``_`` and ``-``, no dots.

    WebDataset cuts keys at the first dot. Folders are joined by ``--``; whatever else has to be
    replaced is made up for by hex digits of the name's hash, so that no key depends on its
    neighbours. Eight digits do where ASCII signs were replaced: hardly any names differ in nothing
    else. Where letters of other scripts or the end of a long name are left out, thousands of names
    may have the rest in common, and the hash alone tells them apart: it has sixteen digits then, by
    which two of N names share a key with a chance of N^2 / 2^65, 3 in a hundred million for a million.

    >>> key_of("cats/0001")
    'cats--0001'
    >>> key_of("a.b") == key_of("a b")
    False
    """
    joined = name.replace("/", "--")
    safe = _UNSAFE.sub("-", joined).strip("-")
    if safe == joined and "--" not in name and len(safe) <= MAX_KEY_CHARACTERS:
        return safe
    fits = 0 < len(safe) < MAX_KEY_CHARACTERS - _FEW_DIGITS
    digits = _FEW_DIGITS if fits and name.isascii() else _MANY_DIGITS
    encoded = name.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(encoded, digest_size=digits // 2).hexdigest()
    return f"{safe[: MAX_KEY_CHARACTERS - digits - 1]}-{digest}".lstrip("-")


def clean_caption(text: str) -> str:
    """One line without control characters; runs of white space become one space.

    >>> clean_caption(" a cat\\non a  mat ")
    'a cat on a mat'
    """
    return " ".join(_CONTROL.sub("", text).split())
