"""Keep libtiff from writing to the terminal: what is wrong with a picture is in the ledger."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

from PIL import _imaging


@cache
def silence() -> None:
    """Switch off the handlers by which libtiff prints a line or more for each odd file.

    Pillow links to libtiff and offers no setting for it; a Pillow without libtiff is left as it is.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        for handler in (library.TIFFSetWarningHandler, library.TIFFSetErrorHandler):
            handler.restype = ctypes.c_void_p
            handler(ctypes.c_void_p(None))
