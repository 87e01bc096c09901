"""The processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from curate.run import control_groups


def usable() -> int:
    """Cores: the machine's that this process may run on, or the least quota of a control group, such as a container's.

    A part of a core counts as one, so that all of a quota is used.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min([cores, *(max(1, math.ceil(quota)) for quota in _quotas())])


def _quotas() -> Iterator[float]:
    """Cores' worth of processor time of this process's control groups and of those above them."""
    for version, folder in control_groups.folders("cpu"):
        if version == 2:
            said = control_groups.text_of(folder / "cpu.max").split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            said = [control_groups.text_of(folder / name) for name in names]
        if len(said) == 2 and all(text.isdigit() and int(text) for text in said):  # "max", -1: none
            yield int(said[0]) / int(said[1])
