"""One spelling for a file name, so that names meet whatever system wrote them."""

from __future__ import annotations

import unicodedata


def normalised(name: str) -> str:
    """``name`` composed (NFC, as Unicode Annex 15 defines it), with ``/`` for Windows' ``\\``.

    macOS and archives made there hold decomposed names (NFD); tables and captions usually hold composed ones.
    """
    return unicodedata.normalize("NFC", name).replace("\\", "/")
