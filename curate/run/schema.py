"""Typed schemas of the configuration: registering, checking, and fields that hold more than a type says."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import AnyNode, DictConfig, OmegaConf, StringNode
from omegaconf.errors import MissingMandatoryValue

Config = TypeVar("Config")

_PATH, _ENTRIES, _REPLACES = "path", "entries", "replaces"

PATH = {_PATH: True}
"""Metadata of a field for a path, or a name that may hold any sign: the commands quote what is typed.

Typed as ``Any``, the field also takes a list.
"""


class UserError(ValueError):
    """The configuration or the input is wrong; the message says what to type. Ends in exit code 2."""

    exit_code = 2


class Busy(UserError):
    """Another process is at work where this one would be; ends in exit code 75 (EX_TEMPFAIL)."""

    exit_code = 75


def check(condition: bool, key: str, value: Any, accepted: str) -> None:
    """Raise a ``UserError`` that names the dotted key, the value, and what is accepted."""
    if not condition:
        shown = f"{value:g}" if isinstance(value, float) else "null" if value is None else value
        raise UserError(
            f"{key}={shown} is out of range; accepted: {accepted}. Type {key}={_near(value, accepted)}"
        )


def _near(value: Any, accepted: str) -> str:
    """A value near to a wrong one that is accepted, as far as the words tell; else ``...``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 1 < value <= 100 and re.search(r"share|cosine", accepted):  # a percentage
            return f"{value / 100:g}"
        if isinstance(value, int) and value < 0 and re.search(r">=? 0", accepted):
            return str(-value)
    words = accepted.split(", ")
    if isinstance(value, int) and len(words) > 1 and all(word.isdecimal() for word in words):
        numbers = sorted(map(int, words))
        return str(next((number for number in numbers if number >= value), numbers[-1]))
    if (
        isinstance(value, str)
        and len(words) > 1
        and all(re.fullmatch(r"\w[\w:+]*", w) for w in words)
    ):
        near = get_close_matches(value.lower(), words, n=1, cutoff=0.75)
        starts = [word for word in words if value.lower().startswith(f"{word}_")]
        return [*near, *starts, *(word for word in words if word != "null")][0]
    return "..."


def register(schema: type, name: str, group: str | None = None) -> None:
    """Make a dataclass known to Hydra, for a YAML's ``defaults`` list to name first.

    Names start with an underscore, which keeps schemas out of the choices that Hydra prints.
    """
    ConfigStore.instance().store(name=f"_{name}", node=schema, group=group)


def entries(entry: type) -> dict[str, type]:
    """Metadata of a mapping whose entries the user names; ``entry`` is the schema of one.

    Hydra wants ``++`` before a key that is not there yet; the commands add it.
    """
    return {_ENTRIES: entry}


def replaces(*names: str) -> dict[str, tuple[str, ...]]:
    """Metadata of a field that cannot stand beside the fields ``names`` of the same schema.

    Where it is typed and they are not, the commands take a preset's values of these away.
    """
    return {_REPLACES: names}


@dataclass(frozen=True)
class Typed:
    """Which keys of the command line are special, as patterns of the whole dotted key.

    Attributes:
        paths: of fields with the metadata ``PATH``.
        lists: those of them that also take a list.
        entries: of everything inside a mapping with the metadata ``entries``. mappings: of these mappings.
        rivals: for each key with the metadata ``replaces`` (not a pattern), the names that it replaces.
    """

    paths: re.Pattern[str]
    lists: re.Pattern[str]
    entries: re.Pattern[str]
    mappings: re.Pattern[str]
    rivals: dict[str, tuple[str, ...]]

    @classmethod
    def of_registered(cls) -> Typed:
        """From the schemas that are registered by now, group members included."""
        paths, lists, inside, mappings = [], [], [], []
        rivals: dict[str, tuple[str, ...]] = {}
        for prefix, schema in _registered(ConfigStore.instance().repo):
            for key, hint, known in _walk(schema, prefix):
                if known.metadata.get(_PATH):
                    paths.append(key)
                    lists += [key] if hint is Any else []
                if _ENTRIES in known.metadata:
                    inside.append(rf"{key}\.[\w-]+(?:\..+)?")
                    mappings.append(key)
                if _REPLACES in known.metadata:
                    rivals[key.replace("\\", "")] = known.metadata[_REPLACES]
        kinds = (paths, lists, inside, mappings)
        one, more, free, whole = (re.compile("|".join(keys) or r"(?!)") for keys in kinds)
        return cls(one, more, free, whole, rivals)


def _registered(repo: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, type]]:
    """The dataclasses that ``register`` stored, each with the pattern its keys begin with."""
    for name, node in repo.items():
        if isinstance(node, dict) and name != "hydra":
            yield from _registered(node, rf"{prefix}{re.escape(name)}\.")
        elif isinstance(node, ConfigNode) and name.startswith("_"):
            schema = OmegaConf.get_type(node.node)
            if is_dataclass(schema):
                yield prefix, schema


def _walk(schema: type, prefix: str) -> Iterator[tuple[str, Any, Field[Any]]]:
    """Every field of a schema and of those inside it: pattern of its key, type, field."""
    hints = get_type_hints(schema)
    for known in fields(schema):
        key, hint = prefix + re.escape(known.name), hints[known.name]
        yield key, hint, known
        inside, below = hint, rf"{key}\."
        if _ENTRIES in known.metadata:
            inside, below = known.metadata[_ENTRIES], rf"{key}\.\w+\."
        if isinstance(inside, type) and is_dataclass(inside):
            yield from _walk(inside, below)


def to_dataclass(cfg: DictConfig, schema: type[Config]) -> Config:
    """The configuration as its dataclass; below this line nobody sees a ``DictConfig``.

    Raises:
        UserError: an unknown key (``+typo=1`` passes Hydra), a missing value, or one out of range.
    """
    _refuse_unknown(cfg)
    return OmegaConf.to_object(cfg)  # type: ignore[return-value]


def check_given(cfg: DictConfig) -> None:
    """Check a configuration in which values may still be missing, to be given later.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    _refuse_unknown(cfg)
    whole = copy.deepcopy(cfg)
    _fill(whole)
    with suppress(MissingMandatoryValue):  # of a number, for which no text can stand
        OmegaConf.to_object(whole)


def _fill(cfg: DictConfig) -> None:
    """Put some text wherever one is missing, so that the values beside it can be checked."""
    for key in cfg:
        if OmegaConf.is_missing(cfg, key) and isinstance(cfg._get_node(key), StringNode | AnyNode):
            cfg[key] = "missing"
    for node in _children(cfg).values():
        _fill(node)


def _refuse_unknown(cfg: DictConfig) -> None:
    """Raise where a key was added with ``+`` beside those of the dataclass that types its node."""
    if unknown := sorted(_unknown_keys(cfg)):
        raise UserError(f"unknown configuration key {unknown[0]!r}; remove it, or see --help")


def _unknown_keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    known = getattr(OmegaConf.get_type(cfg), "__dataclass_fields__", None)
    found = [prefix + key for key in map(str, cfg) if known is not None and key not in known]
    for key, node in _children(cfg).items():
        if prefix + key not in found:
            found += _unknown_keys(node, f"{prefix}{key}.")
    return found


def _children(cfg: DictConfig) -> dict[str, DictConfig]:
    """The mappings directly inside one."""
    nodes = {str(key): cfg._get_node(key) for key in cfg if not OmegaConf.is_missing(cfg, key)}
    return {
        key: node
        for key, node in nodes.items()
        if isinstance(node, DictConfig) and not node._is_none()
    }
