"""Bytes and seconds as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as text, in at most two units.

    >>> duration(0.4), duration(75), duration(7_300), duration(400_000)
    ('0.4 s', '1 min 15 s', '2 h 1 min', '4 d 15 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, units = round(seconds), (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    found = []
    for name, length in units:
        if left >= length or (found and name != "d"):
            found.append(f"{left // length} {name}")
            left %= length
    return " ".join(found[:2])


def size(count: float) -> str:
    """Bytes as text, in decimal units.

    >>> size(999), size(1_500_000), size(2.5e12)
    ('999 B', '1.5 MB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
