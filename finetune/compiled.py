"""``train.compile``: updates go through ``torch.compile``; all else stays as it is without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

BACKEND = "inductor"
_PLACE = "_compiled_call_impl"  # where nn.Module.compile puts what is called instead of the module
_KEPT = "_compiled_for_updates"


def prepare(unet: nn.Module) -> None:
    """Compile ``unet``, at its first update; until then, and in between, it is called as it is."""
    unet.compile(backend=BACKEND)
    unet.__dict__[_KEPT] = unet.__dict__.pop(_PLACE)


@contextmanager
def used(unet: nn.Module) -> Iterator[None]:
    """Call what was compiled inside a ``with`` block, where something was."""
    found = unet.__dict__.get(_KEPT)
    if found is not None:
        unet.__dict__[_PLACE] = found
    try:
        yield
    finally:
        unet.__dict__.pop(_PLACE, None)
