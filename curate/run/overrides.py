"""What the user typed: kept as typed, and its values quoted for Hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException

from curate.run.schema import Typed

CONF = Path(__file__).resolve().parents[2] / "conf"

MULTIRUN = ("-m", "--multirun")

_QUOTED = re.compile(  # by the user, who knows the grammar
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.*\$\{.+\}.*""", re.DOTALL
)

_arguments: list[list[str]] = []  # of the command that this process is; see remember()
_section: list[str] = []


def remember(arguments: Sequence[str], section: str = "") -> None:
    """Keep the command line before it is prepared for Hydra, and whose it is."""
    _arguments[:], _section[:] = [list(arguments)], [section]


def section_of_command() -> str:
    """The section of the command that this process is; "" where it has none."""
    return _section[0] if _section else ""


def typed() -> list[str] | None:
    """The command line as it was typed, without the program; None where no command was started."""
    return list(_arguments[0]) if _arguments else None


def is_override(argument: str) -> bool:
    """Whether an argument is ``key=value`` and not an option of Hydra's.

    >>> is_override("optim.lr=1e-4"), is_override("--config-dir=conf"), is_override("-m")
    (True, False, False)
    """
    return "=" in argument and not argument.startswith("-")


def key_of(override: str) -> str:
    """The dotted key of an override.

    >>> key_of("++filters.columns.x.minimum=0.5")
    'filters.columns.x.minimum'
    """
    return override.partition("=")[0].lstrip("+~")


def prepare(arguments: Sequence[str]) -> list[str]:
    """Spare the user Hydra's grammar, see ``add_entry``, ``quote_path`` and ``quote_text``."""
    special = Typed.of_registered()
    return [quote_text(quote_path(add_entry(argument, special), special)) for argument in arguments]


def without_rivals(arguments: Sequence[str]) -> list[str]:
    """Let what is typed win over a preset's setting that excludes it, see ``schema.replaces``.

    ``filters.clip_similarity.fraction=0.3`` => ``filters.clip_similarity.minimum=null`` in front of it
    """
    rivals, given = Typed.of_registered().rivals, {key_of(a) for a in arguments if is_override(a)}
    found: list[str] = []
    for argument in arguments:
        if is_override(argument) and value_of(argument) != "null":
            group = key_of(argument).rpartition(".")[0]
            keys = [f"{group}.{name}" for name in rivals.get(key_of(argument), ())]
            found += [f"{key}=null" for key in keys if key not in given]
        found.append(argument)
    return found


def add_entry(argument: str, special: Typed | None = None) -> str:
    """Spare the user Hydra's ``++`` where a key is inside a mapping whose entries are named freely.

    ``filters.columns.punsafe.maximum=0.5`` => ``++filters.columns.punsafe.maximum=0.5``, and so for the whole
    mapping, ``data.runs={mine: 1}``
    """
    special = special or Typed.of_registered()
    key, _, value = argument.partition("=")
    whole = value.startswith("{") and ":" in value and special.mappings.fullmatch(key)
    return f"++{argument}" if whole or special.entries.fullmatch(key) else argument


def quote_path(argument: str, special: Typed | None = None) -> str:
    """Spare the user Hydra's grammar where a value is a path or a name: ``~`` is home, any sign may occur.

    ``dataset.root=/a, (1)/b=c`` => ``dataset.root='/a, (1)/b=c'``. What the user quoted, and what
    holds an interpolation, stays as it is.
    """
    typed_key, _, value = argument.partition("=")
    key, special = typed_key.lstrip("+"), special or Typed.of_registered()
    if value in ("", "null") or not special.paths.fullmatch(key):
        return argument
    if value.startswith("[") and value.endswith("]") and special.lists.fullmatch(key):
        return argument
    value = expand_home(value)
    return f"{typed_key}={value if _QUOTED.fullmatch(value) else quoted(value)}"


def quote_text(argument: str) -> str:
    """Quote a value that Hydra cannot read, or of which a comma would make a sweep.

    ``dataset.caption_column=Größe`` => ``dataset.caption_column='Größe'``
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not is_override(argument):
        return argument
    try:
        if not OverridesParser.create().parse_override(argument).is_sweep_override():
            return argument
    except HydraException:
        pass
    typed_key, _, value = argument.partition("=")
    return f"{typed_key}={quoted(value)}"


def value_of(override: str) -> str:
    """The value of an override as it was typed, without the quotes of Hydra's grammar.

    >>> value_of("run.name='a b'"), value_of("optim.lr=1e-4")
    ('a b', '1e-4')
    """
    value = override.partition("=")[2]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return re.sub(r"\\(['\"])", r"\1", value[1:-1])
    return value


def expand_home(path: str) -> str:
    """``~`` and ``~user`` as the shell would have it; unknown users stay."""
    return os.path.expanduser(path)  # noqa: PTH111 (Path's raises for ~nobody)


def quoted(value: str) -> str:
    r"""A text as a value in Hydra's grammar.

    >>> print(quoted("it's"))
    'it\'s'
    """
    # Backslashes count only before a quote and at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value)
    return f"'{escaped}'"


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether Hydra is to start one job for each combination of the values."""
    return any(text in MULTIRUN for text in arguments)
