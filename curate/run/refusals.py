"""Hydra's and OmegaConf's errors in plain words: which key, what is wrong with it, what to type."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from curate.run.foreign import TABLE_IN_README, advice, as_list, sides
from curate.run.keys import (
    FOREIGN,
    Key,
    choices_with,
    example,
    groups,
    handed_on,
    keys,
    meant,
    owners,
)
from curate.run.next_command import COMMANDS
from curate.run.overrides import is_override, key_of, section_of_command, value_of

_SEE = "See --help for the keys and choices"
_NOISE = re.compile(
    r"(full_key|object_type|reference_type)\s*[:=]|To append to your|See https|Available options"
)


def explain(
    error: BaseException, arguments: Sequence[str] | None = None, section: str | None = None
) -> str:
    """One paragraph for an error of Hydra's or OmegaConf's.

    Args:
        error: raised while a configuration was composed.
        arguments: what it was composed from; None for the command line.
        section: whose configuration it was; None for that of the command.
    """
    typed = [
        text for text in (sys.argv[1:] if arguments is None else arguments) if is_override(text)
    ]
    section = section_of_command() if section is None else section
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    said = _explained(error, cause, typed, section).rstrip(".")
    return f"{said}. {_SEE}."


def _explained(
    error: BaseException, cause: BaseException, typed: Sequence[str], section: str
) -> str:
    text = str(cause)
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, choice = str(cause.missing_cfg_file).partition("/")
        options = [option for option in cause.options if not option.startswith("_")]
        default = groups(section).get(group, "") if section else ""
        return no_choice(group, choice, options, default)
    if found := re.match(r"You must specify '(\w+)'", text):
        return _unchosen(found[1], text, typed, section)
    if found := re.match(r"Multiple values for (\w+)", text):
        values = [value_of(argument) for argument in typed if key_of(argument) == found[1]]
        return f"{found[1]} is chosen twice; type {found[1]}={[*values, '...'][0]} once, without +"
    argument = _argument_of(error, cause, typed)
    key = getattr(cause, "full_key", None) or (key_of(argument) if argument else "")
    if isinstance(cause, MissingMandatoryValue):
        known = keys(section).get(key) if section else None
        return f"{key} needs a value; type {key}={_shown(known, section) if known else 'VALUE'}"
    if argument is None:
        return _first_line(cause, key)
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) or "Could not override" in text:
        return unknown_key(argument, section, _keys_beside(cause), typed)
    known = keys(section).get(key_of(argument)) if section else None
    if known is not None and ("pars" not in text or "full_key" in text):
        return wrong_value(known, value_of(argument), section)
    return f"{_first_line(cause, key)} (from {argument!r})"


def no_choice(group: str, choice: str, options: Sequence[str], default: str = "") -> str:
    """What to say of ``group=choice`` where the group has no such choice; ``default`` is the command's own."""
    choice = choice.rstrip("/")  # a leading one begins a path
    text = f"{group}={choice} is no choice; accepted: {', '.join(options)}"
    if "," in choice and {part.strip() for part in choice.split(",")} <= set(options):
        return f"{text}. To try one after another, type -m {group}={choice}"
    if advice := _ADVICE.get(group, lambda _: "")(choice):
        return f"{text}. {advice}"
    lower = {option.lower(): option for option in options}
    near = [lower[found] for found in get_close_matches(choice.lower(), lower, n=1)]
    starts = [option for option in options if choice and option.startswith(choice)]
    usual = [option for option in (default, "folder", "default") if option in options]
    return f"{text}. Type {group}={[*near, *starts, *usual, *options][0]}"


def _pipeline_advice(choice: str) -> str:
    if "/" in choice or "." in choice:
        side = 1024 if "xl" in choice.lower() else 512
        return f"A pipeline of your own is a path: type {shlex.quote(f'model.path={choice}')} model.resolution={side}"
    return "Type model=sdxl" if "xl" in choice.lower() else ""


def _clip_advice(choice: str) -> str:
    if re.match(r"local-dir:|.*/", choice):
        return f"A CLIP of your own is named: type clip=custom {shlex.quote(f'clip.name={choice}')}"
    if "-" in choice:
        return f"Any model of open_clip is named with its weights: type clip=custom clip.name={choice} clip.pretrained=openai"
    return ""


def _dataset_advice(choice: str) -> str:
    if "/" in choice or choice.startswith((".", "~")) or (choice and Path(choice).is_dir()):
        return f"A folder of your own is a path: type dataset=folder {shlex.quote(f'dataset.root={choice}')}"
    return ""


_ADVICE = {"model": _pipeline_advice, "clip": _clip_advice, "dataset": _dataset_advice}


def unknown_key(
    argument: str, section: str, accepted: Sequence[str] = (), typed: Sequence[str] = ()
) -> str:
    """What to say of a setting whose key the command does not have.

    Args:
        argument: ``key=value``.
        section: of the command.
        accepted: the keys beside the one that was not found.
        typed: all that was typed.
    """
    name, value = key_of(argument), value_of(argument)
    text = f"there is no key {name}"
    if said := advice(name, value, typed, section):
        return f"{text}; {said}"
    if found := handed_on(name, section):
        listed = " or ".join(shlex.quote(f"{key}={value}") for key in found)
        return f"{text} of the retraining itself; type {listed}"
    if name == "step" and section == "evaluate":
        return f"{text}; all checkpoints are judged. To export one, type python -m finetune.export RUN step={value}"
    above, _, last = name.rpartition(".")
    twin = {"path": "root", "root": "path"}.get(last)
    if above == "dataset" and twin in accepted:
        return f"{text} with this dataset; did you mean {shlex.quote(f'dataset.{twin}={value}')}"
    if above and (said := _beside(name, value, section, accepted)):
        return f"{text}; {said}"
    if section and name in keys(section):  # of another choice of its group
        having = " or ".join(f"{above}={choice}" for choice in choices_with(above, last))
        return (
            f"{text} with this {above}; it belongs to {having}. Remove it, or choose one of these"
        )
    if found := meant(name, section) if section else []:
        listed = " or ".join(shlex.quote(f"{key}={value}") for key in found)
        return f"{text}; did you mean {listed}"
    if found := handed_on(name, section, near=True) if "." in name else []:
        listed = " or ".join(shlex.quote(f"{key}={value}") for key in found)
        return f"{text}; did you mean {listed}"
    if others := owners(name, section) if section else []:
        listed = " and ".join(COMMANDS[other] for other in others)
        return f"{text} here; {name.partition('.')[0]} belongs to {listed}. Remove it"
    text += f"; accepted: {', '.join(accepted)}" if accepted else ""
    return f"{text}. {TABLE_IN_README}" if section == "train" else text


def _beside(name: str, value: str, section: str, accepted: Sequence[str]) -> str:
    """What to say of a key in a group that has others; "" where it is like none of them."""
    above, _, last = name.rpartition(".")
    if section and FOREIGN.get(last) in keys(section):  # a name that is no misspelling
        return f"did you mean {shlex.quote(f'{FOREIGN[last]}={value}')}"
    if near := get_close_matches(last, accepted, n=1):
        instead = shlex.quote(f"{above}.{near[0]}={value}")
        return f"accepted: {', '.join(accepted)}. Did you mean {instead}"
    return ""


def wrong_value(key: Key, value: str, section: str) -> str:
    """What to say of a value that is not of its key's type."""
    name = key.name
    if key.is_group:
        return _a_group(key, value, section)
    if value == "":
        return f"{name} has no value; type {name}={_shown(key, section)}"
    if value.lower() in ("null", "none", "~"):
        if key.nullable:
            return f"{name} must be {key.kind} or null, not {value!r}; type {name}=null"
        return f"{name} cannot be null; type {name}={_shown(key, section)}"
    if key.kind == "a list":
        form = "with quotes around such an entry" if value.startswith("[") else "in brackets"
        return f"{name} must be a list, {form}; type {shlex.quote(f'{name}={as_list(value)}')}"
    if name == "model.resolution" and (said := sides(value)):
        return f"{name} must be a whole number; {said}"
    number = _number_in(value)
    if number is not None and key.kind == "a whole number" and number == int(number):
        return f"{name} must be a whole number in digits, not {value!r}; type {name}={int(number)}"
    if number is not None and key.kind == "a number":
        return f"{name} must be a number, not {value!r}; type {name}={number:g}"
    such = "" if key.kind == "true or false" else f" such as {_shown(key, section)}"
    return f"{name} must be {key.kind}{such}, not {value!r}"


def _a_group(key: Key, value: str, section: str) -> str:
    """What to say of a value for keys that hold keys, as in ``run=mine``."""
    if said := advice(key.name, value, (), section):
        return f"{key.name} takes no value itself; {said}"
    inside = [k for k in keys(section).values() if k.name.rpartition(".")[0] == key.name]
    number = _number_in(value) is not None
    fitting = [k for k in inside if (k.kind in ("a number", "a whole number")) == number]
    fitting.sort(key=lambda k: not k.name.endswith(".name"))
    listed = ", ".join(k.name.rpartition(".")[2] for k in inside)
    first = [*fitting, *inside][0].name
    if (ours := FOREIGN.get(key.name)) in keys(section):
        first = ours
    return f"{key.name} takes no value itself; its keys are {listed}. Type {first}={value}"


def _number_in(value: str) -> float | None:
    """The number that a value was meant to be: ``5%``, ``0,1``, ``1,000``, ``256px``, ``1e5``."""
    text = value.strip().rstrip(",.;").lower()
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")
    found = re.fullmatch(r"([+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?)\s*(%|px|k)?", text)
    if not found:
        return None
    number = float(found[1].replace(",", "."))
    return number * {"%": 0.01, "k": 1000.0}.get(found[2] or "", 1.0)


def _shown(key: Key, section: str) -> str:
    """A value that a key takes, as an example."""
    if key.kind == "true or false":
        return "true"
    shown = example(section, key.name)
    if not shown and key.default is not None and not str(key.default).startswith("${"):
        shown = str(key.default)
    return shown or {"a whole number": "100", "a number": "0.5"}.get(key.kind, "...")


def _unchosen(group: str, text: str, typed: Sequence[str], section: str) -> str:
    """What to say where a choice is left to the user, and perhaps typed under another name."""
    tops = (
        {*groups(section), *(key.partition(".")[0] for key in keys(section))} if section else set()
    )
    for argument in typed:
        if section and key_of(argument).partition(".")[0] not in tops:
            return unknown_key(argument, section, typed=typed)
    options = [option for option in re.findall(r"(?m)^\s+(\w+)$", text) if option[0] != "_"]
    own = "folder dataset.root=FOLDER" if "folder" in options else options[0]
    return f"{group} needs a choice; accepted: {', '.join(options)}. Type {group}={own}"


def _first_line(cause: BaseException, key: str) -> str:
    """What the error says, without the lines that speak of Hydra's own workings."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not _NOISE.match(line)).rstrip(".?")
    return f"{key}: {text}" if key and key not in text else text


def _argument_of(error: BaseException, cause: BaseException, typed: Sequence[str]) -> str | None:
    """The override that the error speaks of; the last one, as that is the one that holds."""
    full_key = getattr(cause, "full_key", None) or ""
    for text in reversed(typed):
        if full_key and (key_of(text) == full_key or key_of(text).startswith(f"{full_key}.")):
            return text
    words = set(re.findall(r"[\w.]+", str(error)))
    named = [text for text in typed if key_of(text) in words]
    return max(named, key=lambda text: len(key_of(text))) if named else None


def _keys_beside(cause: BaseException) -> list[str]:
    """The keys that there are where one was not found."""
    node = getattr(cause, "parent_node", None)
    missing = isinstance(cause, ConfigAttributeError | ConfigKeyError)
    if not missing or not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return []
    return [key for key in map(str, node) if key != "hydra"]
