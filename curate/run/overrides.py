"""What the user typed: values quoted for Hydra, and Hydra's errors in one paragraph."""

from __future__ import annotations

import os
import re
import sys
from difflib import get_close_matches

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import MissingMandatoryValue

_PATHS = re.compile(
    r"(\+{0,2}(?:(?:dataset|run)\.root|run\.name|model\.path|clip\.name"
    r"|dataset\.(?:path|images_dir|index|spool)|heads\.\w+\.path"
    r"|filters\.caption\.blocklist|filters\.clip_similarity\.made_for))=(.+)",
    re.DOTALL,
)


_LISTS = re.compile(r"\+{0,2}(?:dataset\.path|filters\.caption\.blocklist)=\[.*\]", re.DOTALL)


_ENTRIES = re.compile(r"(?:filters\.columns|heads)\.\w+[.=]")


_QUOTED = re.compile(  # by the user, who knows the grammar
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.*\$\{.+\}.*""", re.DOTALL
)


_GROUPS = ("dataset", "clip", "filters", "model", "method", "optim", "sampler", "gate")


_NOISE = re.compile(
    r"(full_key|object_type|reference_type)\s*[:=]|To append to your config|See https"
)


def add_entry(argument: str) -> str:
    """Spare the user Hydra's ``++`` where a key is an entry of a mapping, which is named as one likes.

    >>> add_entry("filters.columns.punsafe.maximum=0.5")
    '++filters.columns.punsafe.maximum=0.5'
    """
    return f"++{argument}" if _ENTRIES.match(argument) else argument


def quote_path(argument: str) -> str:
    """Spare the user Hydra's grammar where a value is a path or a name: ``~`` is home, any sign may occur.

    What the user quoted, and what holds an interpolation, stays as it is.

    >>> quote_path("dataset.root=/a, (1)/b=c")
    "dataset.root='/a, (1)/b=c'"
    >>> quote_path("optim.lr=1e-4")
    'optim.lr=1e-4'
    """
    found = _PATHS.fullmatch(argument)
    if not found or found[2] == "null" or _LISTS.fullmatch(argument):
        return argument
    key, value = found[1], os.path.expanduser(found[2])  # noqa: PTH111 (Path's raises for ~nobody)
    if _QUOTED.fullmatch(value):
        return f"{key}={value}"
    # Backslashes count only before a quote and at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value)
    return f"{key}='{escaped}'"


def _is_multirun() -> bool:
    return bool({"-m", "--multirun"} & set(sys.argv[1:]))


def explain(error: BaseException) -> str:
    """One paragraph for an error of Hydra's or OmegaConf's: the key, what is wrong, what to type."""
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
    elif unread := next(filter(_needs_quotes, sys.argv[1:]), None):
        name, _, value = unread.partition("=")
        text = f"{unread!r} cannot be read; quote a value that holds , = ( or the like for the shell and "
        text += f"again inside: '{name}=\"{value}\"'"
    else:
        text = f"{_first_line(cause, key)}{_origin(str(error))}"
    return f"{text}. See --help for the keys and choices."


def _first_line(cause: BaseException, key: str) -> str:
    """What the error says, without the lines that speak of Hydra's own workings."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not _NOISE.match(line)).rstrip(".?")
    return f"{key}: {text}" if key and key not in text else text


def _needs_quotes(argument: str) -> bool:
    """Whether Hydra cannot read an override, or takes a comma in it for a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "=" not in argument or argument.startswith("-"):
        return False
    try:
        sweep = OverridesParser.create().parse_override(argument).is_sweep_override()
    except HydraException:
        return True
    return sweep and not _is_multirun()


def _origin(text: str) -> str:
    """The override of this command line that the error speaks of, and what it may have meant."""
    words = set(re.findall(r"[\w.]+", text))
    named = [a for a in sys.argv[1:] if "=" in a and a.lstrip("+~").split("=")[0] in words]
    if not named:
        return ""
    argument = max(named, key=lambda a: len(a.split("=")[0]))
    group, dot, rest = argument.lstrip("+~").split("=")[0].partition(".")
    meant = ""
    if group not in _GROUPS:
        # A dotted name may also be one of a section that is no group, such as samples beside sampler.
        near = get_close_matches(group, _GROUPS, n=1, cutoff=0.9 if dot else 0.6)
        meant = f"; did you mean {near[0] + dot + rest!r}" if near else ""
    elif dot and not any(a.startswith(f"{group}=") for a in sys.argv[1:]):
        meant = f"; if it belongs to another choice of {group}, type {group}=... as well"
    return f" (from {argument!r}){meant}"
