"""One setting of another tool, and what to type for it here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """What to type for a setting of another tool.

    Attributes:
        settings: separated by spaces, each with ``{}`` where the value belongs; "" where there is nothing to type.
        example: the value where none was typed, or none that fits: a number, ``true``, or a text.
        why: said before.
        values: theirs, in lower case, and ours for them; empty where they are the same.
        command: that the settings belong to; "" for the one that was typed.
    """

    settings: str
    example: str = ""
    why: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def say(self, value: str) -> str:
        """Why, and what to type."""
        if not self.settings:
            return f"{self.why}; remove it"
        if value.lower() == "false" and "{}" not in self.settings:
            return "false is what holds without it; remove it"
        fitting = self._fitting(value)
        listed = [each.replace("{}", fitting) for each in self.settings.split(" ")]
        unknown = value and self.values and value.lower() not in self.values
        why = f"{value} is not there" if unknown else self.why
        return f"{why}{': ' if why else ''}type {self.command}{shlex.join(listed)}"

    def _fitting(self, value: str) -> str:
        if self.values:
            return self.values.get(value.lower(), self.example)
        if self.example == "true":
            return value.lower() if value.lower() in ("true", "false") else "true"
        if is_number(self.example):
            return value if is_number(value) else self.example
        return value or self.example


def is_number(text: str) -> bool:
    """Whether a text is a number as people type one."""
    return bool(re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?|\.\d+", text))
