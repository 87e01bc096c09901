"""Checks that the settings of several filters share."""

from __future__ import annotations

from typing import Any

from curate.run.schema import UserError, check


def check_range(key: str, unit: str, low: int | None, high: int | None) -> None:
    """Check the bounds ``key.min_<unit>`` and ``key.max_<unit>``: counts in order, or None."""
    check(low is None or low >= 0, f"{key}.min_{unit}", low, "null or >= 0")
    in_order = high is None or high >= max(low or 0, 1)
    check(in_order, f"{key}.max_{unit}", high, f"null or >= max(1, min_{unit})")


def check_exclusive(config: Any, key: str, one: str, other: str) -> None:
    """Check that at most one of two settings is given.

    Raises:
        UserError: both are.
    """
    if getattr(config, one) is not None and getattr(config, other) is not None:
        raise UserError(
            f"{key}.{one}={getattr(config, one)} and {key}.{other}={getattr(config, other)} exclude "
            f"each other; type {key}.{other}=null or {key}.{one}=null"
        )
