"""Parse a JSON object from a file that cannot be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Pairs = list[tuple[str, Any]]

_MAX_DEPTH = 100  # later code recurses into the object; real metadata has 3 or 4 levels


def json_object(data: bytes | str, hook: Callable[[Pairs], Any] | None = None) -> dict[str, Any]:
    """The JSON object in ``data``, with U+FFFD for bytes that are not UTF-8.

    Args:
        data: JSON.
        hook: makes each object of its fields, as `unique_fields`; None makes dicts.

    Raises:
        ValueError: it is not JSON, not an object, or nested deeper than 100 levels.
    """
    text = data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data
    try:
        content = json.loads(text, object_pairs_hook=hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if _is_deep(content):
        raise ValueError("it is nested too deeply")
    return content


def unique_fields(fields: Pairs) -> dict[str, Any]:
    """``json``'s ``object_pairs_hook``; raises ValueError for two fields of one name, where it takes the last."""
    content = dict(fields)
    if len(content) < len(fields):
        names = [name for name, _ in fields]
        raise ValueError(f"two fields are called {next(n for n in names if names.count(n) > 1)!r}")
    return content


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: Any) -> list[Any]:
    """The dicts and lists directly inside a dict or list."""
    values = item.values() if isinstance(item, dict) else item
    return [value for value in values if isinstance(value, dict | list)]
