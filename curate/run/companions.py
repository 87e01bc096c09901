"""Pictures that come beside a picture: what it is drawn from (``NAME.control.png``), and where it counts (``NAME.mask.png``)."""

from __future__ import annotations

CONTROL, MASK = KINDS = ("control", "mask")
SUFFIX = ".png"  # all that is read, and all that shards store
ERROR = "companion_error"


def location_column(kind: str) -> str:
    """The ledger's column of where the source finds the companion."""
    return f"{kind}_location"


def sha256_column(kind: str) -> str:
    """The column of its bytes' hash, in the ledger, the shard's table and the sample's json."""
    return f"{kind}_sha256"


COLUMNS = (ERROR, *(column(kind) for kind in KINDS for column in (location_column, sha256_column)))


def extension_of(kind: str) -> str:
    """Of a companion's file, without the first dot: ``mask.png``."""
    return f"{kind}{SUFFIX}"
