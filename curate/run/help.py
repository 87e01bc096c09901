"""The help of a command: the template in its YAML, with the choices that the folders of ``conf/`` hold.

Hydra's own way there loads every choice of every group first.
"""

from __future__ import annotations

import re
import textwrap

from curate.run.keys import groups, help_template
from curate.run.overrides import CONF

_CHOICES = re.compile(r"^( *)<choices of (\w+)>$", re.MULTILINE)
_OLD = "# The old name of"  # first words of a choice that is kept for those who know it
_ONLY = re.compile(
    r"# Only in ([\w ]+):"
)  # begins a choice of some commands: their sections, joined by and
_WIDTH = 110


def help_of(section: str) -> str:
    """The help of the command whose settings are in ``conf/<section>.yaml``."""
    default = groups(section)
    return _CHOICES.sub(
        lambda found: _line(found[1], found[2], choices(found[2], default[found[2]], section)),
        help_template(section),
    )


def choices(group: str, first: str = "", section: str = "") -> list[str]:
    """The choices that a command has of a group, ``first`` ahead of the others; old names are left out."""
    texts = {file.stem: file.read_text("utf-8") for file in sorted((CONF / group).glob("*.yaml"))}
    names = [name for name, text in texts.items() if _is_of(section, text)]
    return sorted(names, key=lambda name: name != first)


def _is_of(section: str, text: str) -> bool:
    """Whether a command has the choice that is in a file with this text."""
    only = _ONLY.match(text)
    return not text.startswith(_OLD) and (only is None or section in only[1].split(" and "))


def _line(indent: str, group: str, names: list[str]) -> str:
    """``group=a|b|c``, wrapped behind the bars that divide the choices."""
    start = f"{group}={names[0]}"
    rest = [f"|{name}" for name in names[1:]]
    lines = textwrap.wrap(
        " ".join([start, *rest]),
        _WIDTH - len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    hanging = indent + " " * len(group)
    joined = [line.replace(" |", "|") for line in lines]
    return f"\n{hanging}".join([indent + joined[0], *joined[1:]])
