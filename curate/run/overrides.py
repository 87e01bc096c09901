"""What the user typed: kept as typed, values quoted for Hydra, and Hydra's errors in one paragraph."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from curate.run.schema import Typed

CONF = Path(__file__).resolve().parents[2] / "conf"

MULTIRUN = ("-m", "--multirun")

_QUOTED = re.compile(  # by the user, who knows the grammar
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.*\$\{.+\}.*""", re.DOTALL
)

_NOISE = re.compile(
    r"(full_key|object_type|reference_type)\s*[:=]|To append to your config|See https"
)

_arguments: list[list[str]] = []  # of the command that this process is; see remember()


def remember(arguments: Sequence[str]) -> None:
    """Keep the command line before it is prepared for Hydra, for ``typed``."""
    _arguments[:] = [list(arguments)]


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
    """Spare the user Hydra's grammar, see ``add_entry`` and ``quote_path``."""
    special = Typed.of_registered()
    return [quote_path(add_entry(argument, special), special) for argument in arguments]


def add_entry(argument: str, special: Typed | None = None) -> str:
    """Spare the user Hydra's ``++`` where a key is inside a mapping whose entries are named freely.

    ``filters.columns.punsafe.maximum=0.5`` => ``++filters.columns.punsafe.maximum=0.5``
    """
    special = special or Typed.of_registered()
    return f"++{argument}" if special.entries.fullmatch(argument.partition("=")[0]) else argument


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


def explain(error: BaseException, arguments: Sequence[str] | None = None) -> str:
    """One paragraph for an error of Hydra's or OmegaConf's: the key, what is wrong, what to type.

    Args:
        error: raised while a configuration was composed.
        arguments: what it was composed from; None for the command line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    key = getattr(cause, "full_key", None) or ""
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, choice = str(cause.missing_cfg_file).rpartition("/")
        group = group.rstrip("/")  # the choice itself was a path: model=/my/folder
        choices = [option for option in cause.options if not option.startswith("_")]
        near = get_close_matches(choice, choices, n=1)
        text = f"{group}={choice} is no choice; accepted: {', '.join(choices)}"
        text += f". Type {group}={near[0] if near else choices[0]}"
    elif isinstance(cause, MissingMandatoryValue):
        text = f"{key} needs a value; type {key}=..."
    elif unread := next((a for a in arguments if _needs_quotes(a, arguments)), None):
        name, _, value = unread.partition("=")
        text = f"{unread!r} cannot be read; quote a value that holds , = ( or the like for the shell and "
        text += f"again inside: '{name}=\"{value}\"'"
    else:
        text = f"{_first_line(cause, key)}{_origin(error, cause, arguments)}"
    return f"{text}. See --help for the keys and choices."


def _first_line(cause: BaseException, key: str) -> str:
    """What the error says, without the lines that speak of Hydra's own workings."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not _NOISE.match(line)).rstrip(".?")
    return f"{key}: {text}" if key and key not in text else text


def _needs_quotes(argument: str, arguments: Sequence[str]) -> bool:
    """Whether Hydra cannot read an override, or takes a comma in it for a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not is_override(argument):
        return False
    try:
        sweep = OverridesParser.create().parse_override(argument).is_sweep_override()
    except HydraException:
        return True
    return sweep and not is_multirun(arguments)


def _origin(error: BaseException, cause: BaseException, arguments: Sequence[str]) -> str:
    """The override that the error speaks of, which keys there are, and what it may have meant."""
    words, keys = set(re.findall(r"[\w.]+", str(error))), _keys_beside(cause)
    accepted = f"; accepted: {', '.join(keys)}" if keys else ""
    named = [a for a in arguments if is_override(a) and key_of(a) in words]
    if not named:
        return accepted
    argument = max(named, key=lambda a: len(key_of(a)))
    group, dot, rest = key_of(argument).partition(".")
    meant = ""
    if group not in (groups := _groups()):
        # A dotted name may also be one of a section that is no group, such as samples beside sampler.
        near = get_close_matches(group, groups, n=1, cutoff=0.9 if dot else 0.6)
        meant = f"; did you mean {near[0] + dot + rest!r}" if near else ""
    elif getattr(cause, "key", None) == group and group != "experiment":
        meant = f"; {group} belongs to another command"
    elif dot and not any(a.startswith(f"{group}=") for a in arguments):
        meant = f"; if it belongs to another choice of {group}, type {group}=... as well"
    return f" (from {argument!r}){accepted}{meant}"


def _keys_beside(cause: BaseException) -> list[str]:
    """The keys that there are where one was not found."""
    node = getattr(cause, "parent_node", None)
    missing = isinstance(cause, ConfigAttributeError | ConfigKeyError)
    if not missing or not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return []
    return [key for key in map(str, node) if key != "hydra"]


def _groups() -> list[str]:
    """The configuration's groups, which are its folders; those of all commands."""
    return sorted({path.parent.name for path in CONF.glob("*/*.yaml")} - {"hydra"})
