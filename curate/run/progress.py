"""Progress bars of resumed work: what was done before counts, but not in the speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def count_done(bar: tqdm, items: int) -> None:
    """Move ``bar`` past ``items`` that an earlier run finished."""
    if not bar.disable:  # a bar that TQDM_DISABLE switches off has no ``initial``
        bar.initial += items
    bar.update(items)
