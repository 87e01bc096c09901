"""Rules on any column: our measures and heads, or numbers and texts that the data set comes with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from curate.filters.rule import Rule, above, below
from curate.measures import registry
from curate.run.schema import UserError, check

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ColumnConfig:
    """What to keep of a column: a range of numbers, or texts; null leaves an end, or the choice, open.

    Attributes:
        minimum: keep numbers >= minimum.
        maximum: keep numbers <= maximum.
        accept: keep these values only, compared as text without regard to case.
        reject: drop these values; likewise.
        keep_missing: whether a pair without a value stays.
    """

    minimum: float | None = None
    maximum: float | None = None
    accept: list[str] | None = None
    reject: list[str] | None = None
    keep_missing: bool = False

    @classmethod
    def of(cls, column: str, values: Any) -> ColumnConfig:
        """From a mapping, because Hydra cannot add a typed entry to a mapping on the command line."""
        key, known = f"filters.columns.{column}", [field.name for field in fields(cls)]
        valid = isinstance(values, Mapping) and set(values) <= set(known)
        check(valid, key, values, f"null, or some of {', '.join(known)}")
        rule = cls(**values)
        low, high, keep = rule.minimum, rule.maximum, rule.keep_missing
        check(low is None or _is_number(low), f"{key}.minimum", low, "null or a number")
        in_order = high is None or (_is_number(high) and (low is None or low <= high))
        check(in_order, f"{key}.maximum", high, "null or a number, no less than the minimum")
        check(isinstance(keep, bool), f"{key}.keep_missing", keep, "true, false")
        for name in ("accept", "reject"):
            listed = getattr(rule, name)
            accepted = f"null or a list such as {key}.{name}=[NSFW]"
            valid = listed is None or (isinstance(listed, list) and len(listed) > 0)
            check(valid, f"{key}.{name}", listed, accepted)
            if listed is not None:
                setattr(rule, name, [str(value) for value in listed])
        is_listed = rule.accept is not None or rule.reject is not None
        check(rule.is_text or not is_listed, key, values, "a range or texts, not both")
        return rule

    @property
    def is_text(self) -> bool:
        """Whether the rule takes values as texts, which any value can be."""
        return self.minimum is None and self.maximum is None


Bound = tuple[str, str]
"""A column, and the end of its range."""


@dataclass(slots=True)
class Exactness:
    """Which bounds compare whole numbers exactly, where the column's type does not say so.

    Numbers that are stored as text, or of which some are missing, are compared exactly where all that a rule
    looks at are whole and none is missing; else as floats. Rows come in parts, and where one part is whole,
    another may not be: then ``agreed`` says what holds for all.

    Attributes:
        inexact: bounds that compare floats, whatever the rows at hand look like.
        seen: for each bound whether the rows so far were whole; none are known of no rows.
    """

    inexact: frozenset[Bound] = frozenset()
    seen: dict[Bound, bool] = field(default_factory=dict)

    def of(self, bound: Bound, is_whole: bool) -> bool:
        """Whether to compare exactly; notes what the rows look like."""
        self.seen[bound] = self.seen.get(bound, True) and is_whole
        return is_whole and bound not in self.inexact

    @staticmethod
    def agreed(seen: Iterable[Mapping[Bound, bool]]) -> frozenset[Bound]:
        """The bounds that some rows, of those that each of ``seen`` is about, do not let compare exactly."""
        return frozenset(bound for each in seen for bound, is_whole in each.items() if not is_whole)


def rules(config: Mapping[str, ColumnConfig], exactness: Exactness | None = None) -> list[Rule]:
    """For each column: the value is missing (unless ``keep_missing``), too low, too high, or not wanted.

    ``exactness`` says how numbers are compared where the rows that are judged are not all there are.
    """
    found: list[Rule] = []
    known = exactness or Exactness()
    for name, column in config.items():
        values = partial(_texts if column.is_text else _numbers, name)
        if not column.keep_missing:
            found.append(Rule(name, f"{name} is missing", partial(_missing, values)))
        if column.is_text:
            found += _listed(name, values, column)
        if column.minimum is not None:
            low = partial(_numbers, name, bound=((name, "minimum"), known))
            found.append(below(name, low, column.minimum))
        if column.maximum is not None:
            high = partial(_numbers, name, bound=((name, "maximum"), known))
            found.append(above(name, high, column.maximum))
    return found


def _listed(
    name: str, texts: Callable[[pd.DataFrame], pd.Series], column: ColumnConfig
) -> list[Rule]:
    """Rules that keep accepted texts and drop rejected ones; a missing text is neither."""

    def drops(wanted: list[str], kept: bool) -> Callable[[pd.DataFrame], pd.Series]:
        listed = [_folded(text) for text in wanted]

        def dropped(pairs: pd.DataFrame) -> pd.Series:
            found = texts(pairs)
            return found.notna() & (found.isin(listed) != kept)

        return dropped

    found = []
    if column.accept is not None:
        reason = f"{name} is not {' or '.join(column.accept)}"
        found.append(Rule(name, reason, drops(column.accept, kept=True)))
    if column.reject is not None:
        reason = f"{name} is {' or '.join(column.reject)}"
        found.append(Rule(name, reason, drops(column.reject, kept=False)))
    return found


def _texts(name: str, pairs: pd.DataFrame) -> pd.Series:
    """The column as text without white space around it or regard to case; None where there is none."""
    if name not in pairs:
        raise _unknown(name, sorted(map(str, pairs.columns)))
    column = pairs[name]
    texts = column.astype("object").map(_folded)
    return texts.where(column.notna() & (texts != ""), None)


def _folded(value: Any) -> str:
    """A value as text to compare; whole numbers have no decimal point."""
    is_whole = isinstance(value, float) and value.is_integer()
    return (f"{value:.0f}" if is_whole else str(value)).strip().casefold()


def _unknown(name: str, there: list[str]) -> UserError:
    near = get_close_matches(name, [*there, *registry.COLUMNS], 1)
    return UserError(
        f"filters.columns.{name}: the data set has no column {name!r}"
        + (f", did you mean {near[0]!r}?" if near else ".")
        + f" Its columns: {', '.join(there)}; measured when a rule names them: "
        f"{', '.join(registry.COLUMNS)}; heads.NAME=... gives head_NAME"
    )


def _numbers(
    name: str, pairs: pd.DataFrame, bound: tuple[Bound, Exactness] | None = None
) -> pd.Series:
    """The column: whole numbers exactly, others as float32, NaN where missing."""
    import numpy as np
    import pandas as pd

    if name not in pairs:
        raise _unknown(name, sorted(pairs.select_dtypes("number").columns))
    try:
        numbers = pd.to_numeric(pairs[name])
        is_whole = pd.api.types.is_integer_dtype(numbers)
        is_exact = is_whole and not numbers.hasnans
        # Of numpy's own numbers the type says all.
        if bound is not None and len(numbers) and not isinstance(pairs[name].dtype, np.dtype):
            is_exact = bound[1].of(bound[0], is_exact)
        if is_exact:
            return numbers
        stays_whole = isinstance(pairs[name].dtype, pd.Int64Dtype)
        return numbers.astype(np.float64 if stays_whole else np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"filters.columns.{name}: not all values are numbers ({error}); for texts type "
            f"filters.columns.{name}.accept=[...] or .reject=[...]"
        ) from error


def _missing(values: Callable[[pd.DataFrame], pd.Series], pairs: pd.DataFrame) -> pd.Series:
    return values(pairs).isna()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
