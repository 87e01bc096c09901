"""Parse a JSON object from a file that cannot be trusted."""

from __future__ import annotations

import json
from typing import Any

_MAX_DEPTH = 100  # later code recurses into the object; real metadata has 3 or 4 levels


def json_object(data: bytes | str) -> dict[str, Any]:
    """The JSON object in ``data``, with U+FFFD for bytes that are not UTF-8.

    Raises:
        ValueError: it is not JSON, not an object, or nested deeper than 100 levels.
    """
    text = data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if _is_deep(content):
        raise ValueError("it is nested too deeply")
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
