"""What a source says of an image, converted for the ledger: column names, values, captions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from curate.measures import registry
from curate.readers.candidate import clean_caption
from curate.run import companions
from curate.run.ledger import COLUMNS, HELD_OUT_BY

CAPTION_NAMES = ("text", "caption", "captions", "TEXT", "alt", "top_caption", "title")
"""Field names under which data sets publish captions; the first that is present counts."""

RESERVED = frozenset(
    (
        *COLUMNS,
        HELD_OUT_BY,
        "group",  # a source's own would keep unrelated pictures on one side of the split
        *("has_caption", "version", "pixels_sha256", "thumbnail", "error"),
        *("image_embedding", "text_embedding"),
        "pixels",  # the former name of pixels_sha256, see annotate.parts
        *("captions", "similarity"),  # of a shard's JSON
        *companions.COLUMNS,
        *registry.COLUMNS,
    )
)
_INT64 = 2**63


def twice(names: Iterable[str]) -> str:
    """The names that several columns have, to be refused; "" if none. Columns without a name may be several."""
    times = Counter(filter(None, names))
    return ", ".join(name for name, count in times.items() if count > 1)


def column_name(name: str) -> str:
    """``name``, or ``source_<name>`` where it would hide a column of the ledger or the annotations."""
    return f"source_{name}" if name in RESERVED else name


def flat(record: Mapping[str, Any], leave: Collection[str] = ()) -> dict[str, Any]:
    """A record as columns: scalars unchanged, nested values as JSON, without bytes and missing values.

    The fields named in ``leave`` are left out.
    """
    columns = {}
    for name, value in record.items():
        if name in leave or is_missing(value) or holds_bytes(value):
            continue
        column = column_name(str(name))
        while column != name and column in record:  # from an earlier curation: key and source_key
            column = f"source_{column}"
        columns[column] = plain(value)
    return columns


def captions_in(value: Any) -> tuple[str, ...]:
    """The captions in a field, each once: a text or a list of texts; numbers as text.

    Missing values, objects and nested lists are no captions.
    """
    items = value if isinstance(value, list | tuple) else [value]
    texts = (_text(item) for item in items if not is_missing(item))
    return tuple(
        dict.fromkeys(clean_caption(encodable(text)) for text in texts if text is not None)
    )


def _text(item: Any) -> str | None:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    return None if isinstance(item, Mapping | list | tuple) else str(item)


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or infinite; JSON has neither of the last two."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def encodable(text: str) -> str:
    """``text`` with ``?`` for lone surrogates, which JSON can express and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def holds_bytes(value: Any) -> bool:
    """Whether a value is bytes, or has some inside, as a stored picture ``{"bytes", "path"}`` has."""
    if isinstance(value, Mapping):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_bytes, value))
    return isinstance(value, bytes)


def plain(value: Any) -> str | int | float | bool:
    """A value that is not missing, as a scalar: nested ones as JSON, with null for missing values inside.

    Numbers stay numbers, decimal ones too where a float has all their digits; dates, times and what else
    is no number become text, as Python prints it.
    """
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return str(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(_finite(value), ensure_ascii=True, sort_keys=True, default=plain)
    return plain(value.item()) if hasattr(value, "item") else encodable(str(value))


def _number(value: Decimal) -> str | int | float:
    """A whole number, a float, or as text what neither holds exactly."""
    if value == value.to_integral_value() and value.as_tuple().exponent == 0:
        return plain(int(value))  # type: ignore[return-value]
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if is_missing(value) else value
