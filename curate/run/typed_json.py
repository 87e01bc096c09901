"""Values of JSON as the dataclasses that describe them, checked key by key."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def typed(kind: Any, value: Any, where: str) -> Any:
    """``value`` from JSON as ``kind``: dataclasses, tuples, dictionaries, optionals and plain values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        (inner,) = (k for k in arguments if k is not type(None))
        return value if value is None else typed(inner, value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        names = {field.name for field in fields(kind)}
        if not isinstance(value, dict) or value.keys() != names:
            odd = sorted(names ^ (value.keys() if isinstance(value, dict) else set()))
            raise ValueError(f"{where}: missing or unknown keys: {', '.join(odd)}")
        hints = get_type_hints(kind)
        return kind(**{n: typed(hints[n], value[n], f"{where}.{n}") for n in sorted(names)})
    if origin is tuple and isinstance(value, list):
        return tuple(typed(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: typed(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    plain: Any = (int, float) if kind is float else origin or kind
    if not isinstance(value, plain) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return float(value) if kind is float else value
