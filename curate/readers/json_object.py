"""JSON objects out of files that others wrote."""

from __future__ import annotations

import json
from typing import Any

_MAX_DEPTH = 100  # whoever walks the object later recurses into it; metadata has 3 or 4 levels


def json_object(data: bytes | str) -> dict[str, Any]:
    """The object that ``data`` holds, with U+FFFD for bytes that are not UTF-8.

    Raises:
        ValueError: it is not JSON, no object, or nested deeper than 100 levels.
    """
    text = data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if _is_deep(content):
        raise ValueError("it is nested too deep")
    return content


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: Any) -> list[Any]:
    """The containers in a container."""
    values = item.values() if isinstance(item, dict) else item
    return [value for value in values if isinstance(value, dict | list)]
