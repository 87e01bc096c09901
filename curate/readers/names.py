"""One spelling for a file name, so that names meet whatever system wrote them."""

from __future__ import annotations

import unicodedata


def normalised(name: str) -> str:
    """``name`` composed (NFC, as Unicode Annex 15 defines it), with ``/`` for Windows' ``\\``.

    macOS and archives made there hold decomposed names (NFD); tables and captions usually hold composed ones.
    """
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).replace("\\", "/")


def folded(name: str) -> str:
    """`normalised`, and without letter case: equal for names that a file system may not keep apart."""
    if name.isascii():
        return name.replace("\\", "/").lower()
    return unicodedata.normalize("NFC", normalised(name).casefold())
