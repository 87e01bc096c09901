"""Rules on any column of numbers: our own measures and heads, or the scores that a release brings."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial

import numpy as np
import pandas as pd

from curate.filters.config import BoundsConfig
from curate.filters.rule import Rule, within
from curate.measures import registry
from curate.run.cli import UserError


def rules(config: Mapping[str, BoundsConfig]) -> list[Rule]:
    """For each column: a number is missing (unless such pairs may stay), too low, too high."""
    found: list[Rule] = []
    for name, bounds in config.items():
        measure = partial(_numbers, name)
        if not bounds.keep_missing:
            found.append(Rule(name, f"{name} is missing", partial(_missing, name)))
        found += within(name, measure, bounds.minimum, bounds.maximum)
    return found


def _numbers(name: str, pairs: pd.DataFrame) -> pd.Series:
    if name not in pairs:
        numeric = sorted(pairs.select_dtypes("number").columns)
        near = get_close_matches(name, [*numeric, *registry.COLUMNS], 1)
        raise UserError(
            f"filters.columns.{name}: the data set has no column {name!r}"
            + (f", did you mean {near[0]!r}?" if near else ".")
            + f" Columns of numbers: {', '.join(numeric)}; measured when a rule names them: "
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
