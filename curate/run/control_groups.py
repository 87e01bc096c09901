"""The files of this process's control groups, which say what it may use, such as in a container; see cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def folders(controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of this process's groups of a controller, and of those above them; not all have to exist.

    Args:
        controller: as ``memory`` or ``cpu``.
    """
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds and controller not in kinds.split(","):
            continue
        # Version 1 has a mount for each set of controllers, and mostly links by the name of each.
        for name in dict.fromkeys((controller, kinds)) if kinds else ("",):
            top = _MOUNT / name
            folder = top / group.lstrip("/")
            # In a container the mount may begin at its own group, so the path from the host's root leads nowhere.
            for each in (folder, *folder.parents):
                yield (1 if kinds else 2), each
                if each == top:
                    break


def text_of(path: Path) -> str:
    """What a group's file says; "" where there is none: of another mount, or the root, which has no limits."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
