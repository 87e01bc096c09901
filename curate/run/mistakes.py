"""Arguments that are no settings: refused before Hydra reads them, with what to type instead."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from curate.run.foreign import TABLE_IN_README, advice
from curate.run.help import choices
from curate.run.keys import example, groups, handed_on, keys, meant
from curate.run.overrides import CONF, is_override, key_of, value_of
from curate.run.schema import Typed, UserError

_FORM = "settings are typed key=value, as in run.name=mine"
_KEY = re.compile(r"(\+{0,2}|~)[A-Za-z_][\w.\-/@:]*")
_ALIKE = 0.75  # of the letters of two names
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


def refuse(arguments: Sequence[str], section: str, flags: Sequence[str] = ()) -> None:
    """Refuse what is neither an option of Hydra's nor a setting.

    Args:
        arguments: of the command line, without the command's own flags.
        section: of the command.
        flags: that the command has beside Hydra's options, such as ``--why``.

    Raises:
        UserError: names the argument, and what was probably meant.
    """
    options, words = _split(arguments)
    for option in options:
        name = option.lstrip("-").partition("=")[0]
        if near := get_close_matches(name, [flag.lstrip("-") for flag in flags], 1, _ALIKE):
            raise UserError(f"{option} is no option; type --{near[0]}")
        raise UserError(_no_option(option, arguments, section))
    for place, word in enumerate(words):
        if not is_override(word) or not _KEY.fullmatch(word.partition("=")[0]):
            raise UserError(_no_setting(words, place, section))
    special = Typed.of_registered()
    for word in words:
        key, value = key_of(word), value_of(word)
        if special.paths.fullmatch(key) and _WINDOWS.match(value) and not Path(value).exists():
            raise UserError(
                f"{key}={value} is a path of Windows, which this system does not have; inside WSL drive "
                f"{value[0]}: is /mnt/{value[0].lower()}. Type {shlex.quote(f'{key}={_in_wsl(value)}')}"
            )


def _in_wsl(path: str) -> str:
    return f"/mnt/{path[0].lower()}/" + path[3:].replace("\\", "/")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that Hydra does not have, and the arguments that are no options nor their values."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.exit_on_error = False
    known = {name: action for action in parser._actions for name in action.option_strings}
    unknown, words, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        action = known.get(argument.partition("=")[0])
        if action is None or not argument.startswith("-"):
            (unknown if _is_option(argument) else words).append(argument)
        elif action.nargs is None and "=" not in argument and rest:
            rest.pop(0)  # the option's value
        elif action.nargs == "?" and rest and action.choices and rest[0] in action.choices:
            rest.pop(0)
    return unknown, words


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not re.match(r"-[\d.]", argument)


def _no_option(option: str, arguments: Sequence[str], section: str) -> str:
    """What to say of ``--key value`` or ``--key=value``."""
    name, equals, value = option.lstrip("-").partition("=")
    place = arguments.index(option) + 1
    if not equals and place < len(arguments):
        follows = arguments[place]
        value = "" if _is_option(follows) or is_override(follows) else follows
    if said := advice(name, value, arguments, section):
        return f"{option} is no option; {said}"
    return f"{option} is no option; {_FORM}. {_to_type(name, value, section)}"


def _to_type(name: str, value: str, section: str) -> str:
    """``Type key=value``, with the key that a name means; what there is where it means none."""
    if name in {*groups(section), *keys(section)} and not _is_group_of_keys(name, section):
        found = [name]
    else:
        found = handed_on(name, section) or meant(name, section)
    if not found:
        see = "See --help for the keys"
        return f"{see}. {TABLE_IN_README}" if section == "train" else see
    settings = [f"{key}={value or _example(section, key)}" for key in found]
    return f"Type {' or '.join(map(shlex.quote, settings))}"


def _example(section: str, name: str) -> str:
    """A value that a key takes."""
    key = keys(section).get(name)
    on = "true" if key is not None and key.kind == "true or false" else "..."
    return example(section, name) or on


def _is_group_of_keys(name: str, section: str) -> bool:
    key = keys(section).get(name)
    return key is not None and key.is_group and name not in groups(section)


def _no_setting(words: Sequence[str], place: int, section: str) -> str:
    """What to say of a word that is no ``key=value``."""
    word = words[place]
    before = words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    if spaced := _around_equals(words, place):
        return f"there may be no space around =: type {shlex.quote(spaced)}"
    if is_override(word):
        return f"{word!r} has no key that can be read; {_FORM}"
    key, colon, value = word.partition(":")
    if colon and (key in keys(section) or key in groups(section)):
        return f"{word!r} has a colon for =; type {shlex.quote(f'{key}={value}')}"
    if place and is_override(before) and _is_cut(before, word):
        whole = _until_next_setting(words, place - 1)
        return f"{word!r} has no key; if it belongs to the value before it, quote both: type {shlex.quote(whole)}"
    bare = after if after and not is_override(after) else ""
    if said := advice(word, bare, words, section):
        return f"{word} has no value; {_FORM}. {said[0].upper()}{said[1:]}"
    if word in keys(section) or word in groups(section):
        return f"{word} has no value; {_FORM}. {_to_type(word, bare, section)}"
    if meaning := _bare_value(word, section):
        return f"{word!r} has no key; type {shlex.quote(meaning)}"
    if section == "curate" and Path(word).expanduser().exists():
        return f"{word!r} has no key; type dataset=folder {shlex.quote(f'dataset.root={word}')}"
    if section != "curate" and re.fullmatch(r"[\w./-]+", word):
        name = os.path.basename(word.rstrip("/"))  # noqa: PTH119 (of a text)
        return f"{word!r} has no key; {_FORM}. Type run.name={name}"
    return f"{word!r} has no key; {_FORM}. See --help for the keys and choices"


def _bare_value(word: str, section: str) -> str:
    """The setting of which a word is the value: an experiment, or a choice of a group; "" where it is none."""
    if word.endswith((".yaml", ".yml")) or (section == "retrain" and word in _experiments()):
        return f"experiment={word}"
    chosen = (group for group in groups(section) if word in choices(group, section=section))
    return next((f"{group}={word}" for group in chosen), "")


def _experiments() -> set[str]:
    """The names of the experiments that come with the commands."""
    return {path.stem for path in (CONF / "experiment").glob("*.yaml")}


def _around_equals(words: Sequence[str], place: int) -> str:
    """``key=value`` of ``key = value``, ``key= value`` or ``key =value``; "" where it is none of these."""
    word = words[place]
    before = words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    if after == "=":
        return "".join(words[place : place + 3])
    if after.startswith("="):
        return word + after
    if is_override(word) and word.startswith("=") and before:
        return before + word
    if place and before.endswith("=") and before.count("=") == 1 and not is_override(word):
        return before + word
    return ""


def _is_cut(setting: str, word: str) -> bool:
    """Whether a word may be the rest of a path that the shell cut at a space."""
    key, value = key_of(setting), value_of(setting)
    is_path = bool(Typed.of_registered().paths.fullmatch(key))
    return is_path or Path(f"{value} {word}").exists()


def _until_next_setting(words: Sequence[str], place: int) -> str:
    end = place + 1
    while end < len(words) and not is_override(words[end]):
        end += 1
    return " ".join(words[place:end])
