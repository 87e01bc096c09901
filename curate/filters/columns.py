"""Rules on any numeric column: our measures and heads, or scores that the data set comes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from curate.filters.rule import Rule, within
from curate.measures import registry
from curate.run.schema import UserError, check

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class BoundsConfig:
    """The range to keep of a numeric column; null leaves that end open."""

    minimum: float | None = None
    maximum: float | None = None
    keep_missing: bool = False  # whether a pair without a number stays

    @classmethod
    def of(cls, column: str, values: Any) -> BoundsConfig:
        """From a mapping, because Hydra cannot add a typed entry to a mapping on the command line."""
        key, known = f"filters.columns.{column}", [field.name for field in fields(cls)]
        valid = isinstance(values, Mapping) and set(values) <= set(known)
        check(valid, key, values, f"null, or some of {', '.join(known)}")
        bounds = cls(**values)
        low, high, keep = bounds.minimum, bounds.maximum, bounds.keep_missing
        check(low is None or _is_number(low), f"{key}.minimum", low, "null or a number")
        in_order = high is None or (_is_number(high) and (low is None or low <= high))
        check(in_order, f"{key}.maximum", high, "null or a number, no less than the minimum")
        check(isinstance(keep, bool), f"{key}.keep_missing", keep, "true, false")
        return bounds


def rules(config: Mapping[str, BoundsConfig]) -> list[Rule]:
    """For each column: the number is missing (unless ``keep_missing``), too low, too high."""
    found: list[Rule] = []
    for name, bounds in config.items():
        measure = partial(_numbers, name)
        if not bounds.keep_missing:
            found.append(Rule(name, f"{name} is missing", partial(_missing, name)))
        found += within(name, measure, bounds.minimum, bounds.maximum)
    return found


def _numbers(name: str, pairs: pd.DataFrame) -> pd.Series:
    """The column: whole numbers exactly, others as float32, NaN where missing."""
    import numpy as np
    import pandas as pd

    if name not in pairs:
        numeric = sorted(pairs.select_dtypes("number").columns)
        near = get_close_matches(name, [*numeric, *registry.COLUMNS], 1)
        raise UserError(
            f"filters.columns.{name}: the data set has no column {name!r}"
            + (f", did you mean {near[0]!r}?" if near else ".")
            + f" Numeric columns: {', '.join(numeric)}; measured when a rule names them: "
            f"{', '.join(registry.COLUMNS)}; heads.NAME=... gives head_NAME"
        )
    try:
        numbers = pd.to_numeric(pairs[name])
        if pd.api.types.is_integer_dtype(numbers):
            return numbers.astype(np.float64) if numbers.hasnans else numbers
        return numbers.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"filters.columns.{name}: not all values are numbers ({error})") from error


def _missing(name: str, pairs: pd.DataFrame) -> pd.Series:
    return _numbers(name, pairs).isna()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
