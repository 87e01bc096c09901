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
_WIDTH = 110


def help_of(section: str) -> str:
    """The help of the command whose settings are in ``conf/<section>.yaml``."""
    default = groups(section)
    return _CHOICES.sub(
        lambda found: _line(found[1], found[2], default[found[2]]), help_template(section)
    )


def choices(group: str, first: str = "") -> list[str]:
    """The choices of a group by name, ``first`` ahead of the others; old names are left out."""
    files = sorted((CONF / group).glob("*.yaml"))
    names = [file.stem for file in files if not file.read_text("utf-8").startswith(_OLD)]
    return sorted(names, key=lambda name: name != first)


def _line(indent: str, group: str, first: str) -> str:
    """``group=a|b|c``, wrapped behind the bars that divide the choices."""
    start = f"{group}={choices(group, first)[0]}"
    rest = [f"|{name}" for name in choices(group, first)[1:]]
    lines = textwrap.wrap(
        " ".join([start, *rest]),
        _WIDTH - len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    hanging = indent + " " * len(group)
    joined = [line.replace(" |", "|") for line in lines]
    return f"\n{hanging}".join([indent + joined[0], *joined[1:]])
