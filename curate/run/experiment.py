"""The key ``experiment=``: a file with settings of all commands, used as if they were typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from curate.run import datasets
from curate.run.help import choices
from curate.run.keys import SCHEMAS, groups
from curate.run.overrides import CONF, expand_home, is_override, key_of, quoted
from curate.run.refusals import explain
from curate.run.schema import Typed, UserError, check_given

_KEY = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")  # the name of a run may be in it
_FORM = "a section holds keys as they are typed, such as optim.lr: 1e-3 or method: locon"


def apply(arguments: Sequence[str], section: str) -> list[str]:
    """Replace ``experiment=FILE`` by the settings of a section; what is typed wins over the file.

    Every section of the file is checked, whichever command reads it.

    Args:
        arguments: of the command line, without the program.
        section: of the command that is started.

    Raises:
        UserError: there is no such file, it cannot be read, or a setting in it is wrong.
    """
    named = [a for a in arguments if is_override(a) and key_of(a) == "experiment"]
    if not named or not section:
        return list(arguments)
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)}: one command takes one experiment; type one")
    path = find(named[0].partition("=")[2])
    sections = read(path)
    for name, overrides in sections.items():
        command, _, dataset = name.partition(" ")
        before = sections.get(command, []) if dataset else []
        _check(path, name, [*before, *overrides])
    rest = [argument for argument in arguments if argument != named[0]]
    # Of two values the later wins. Options stay in front: Hydra reads no overrides on both sides of one.
    place = next((n for n, text in enumerate(rest) if is_override(text)), len(rest))
    return [*rest[:place], *sections.get(section, []), *rest[place:]]


def find(name: str) -> Path:
    """The file of an experiment: a path, or the name of a file in ``conf/experiment``.

    Raises:
        UserError: there is none.
    """
    given = Path(expand_home(name))
    if len(given.parts) > 1 or given.suffix in (".yaml", ".yml"):
        path, where = given, f"{given} is no file"
    else:
        path, where = CONF / "experiment" / f"{name}.yaml", "there is no such experiment"
    if path.is_file():
        return path
    present = sorted(found.stem for found in (CONF / "experiment").glob("*.yaml"))
    here = [
        f"{given}{suffix}" for suffix in (".yaml", ".yml") if Path(f"{given}{suffix}").is_file()
    ]
    near = [*here, *get_close_matches(given.stem, present, n=1), "FILE.yaml"]
    raise UserError(
        f"experiment={name}: {where}; accepted: {', '.join(present)}, or the path of a YAML file. "
        f"Type experiment={near[0]}"
    )


def read(path: Path) -> dict[str, list[str]]:
    """The overrides of each section, in Hydra's grammar.

    Those for one of a retraining's data sets are a section of their own, ``curate NAME``.

    Raises:
        UserError: the file is no YAML, or holds anything but sections of keys and values.
    """
    content = load(path)
    accepted = ", ".join(f"{name}:" for name in SCHEMAS)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{_shown(path)} has no sections; accepted: {accepted}; {_FORM}")
    if unknown := [name for name in content if name not in SCHEMAS]:
        raise UserError(
            f"{_shown(path)}: {unknown[0]!r} is no section; accepted: {accepted}; {_FORM}"
        )
    for name in content:
        import_module(SCHEMAS[name])
    found: dict[str, list[str]] = {}
    for name, values in content.items():
        where = _place(path, name)
        settings = _settings(where, values)
        if name == "retrain":
            settings, curated = datasets.parted(where, settings)
            import_module(SCHEMAS["curate"])
            for dataset, own in curated.items():
                section = f"curate {dataset}"
                found[section] = _in_hydra(_place(path, section), own)
        found[name] = _in_hydra(where, settings)
    return found


def load(path: Path) -> Any:
    """The content of a file, of which nothing is checked but that it is YAML.

    Raises:
        UserError: it is none.
    """
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{_shown(path)}{line}: {_in_words(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(path)} is not UTF-8; save it as UTF-8 text") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{_shown(path)} cannot be read as YAML; {_FORM}") from error
    except OSError as error:
        if error.errno is not None:  # OmegaConf raises one without, for a file of one value
            raise
        return None


def _in_words(error: MarkedYAMLError) -> str:
    """What to mend in a line that is no YAML."""
    problem = error.problem or ""
    if "\\t" in problem:
        return "a tab stands where YAML wants spaces; indent with spaces"
    if found := re.search(r"duplicate key (\S+)", problem):
        return f"{found[1]} is given twice (a duplicate key); remove one"
    return (
        "this line or the one before it cannot be read as YAML: write one key: value in a line, all keys of a "
        "section indented alike, and values with : # [ { or quotes in them in quotes"
    )


def _settings(where: str, values: Any) -> datasets.Settings:
    """The dotted keys of a section and their values."""
    if values is None:
        return []
    if not isinstance(values, dict):
        hint = ""
        if isinstance(values, str) and "=" in values:
            key, _, value = values.partition("=")
            hint = f". Write {key.strip()}: {value.strip()}"
        raise UserError(f"{where}: {values!r} are no keys with values; {_FORM}{hint}")
    return list(_flat(values))


def _in_hydra(where: str, settings: datasets.Settings) -> list[str]:
    """Settings as overrides; refuses keys that are none."""
    special, found = Typed.of_registered(), {}
    for key, value in settings:
        if not _KEY.fullmatch(key) or key.partition(".")[0] in ("hydra", "experiment", "defaults"):
            raise UserError(f"{where}: {key!r} is no key of an experiment; {_FORM}")
        if key in found:
            raise UserError(f"{where}: {key} is given twice; remove one")
        if special.paths.fullmatch(key):
            if isinstance(value, bool | int | float):  # YAML reads 2024_10 as 202410
                raise UserError(
                    f"{where}: {key}: {value} is a number to YAML; quote it: {key}: '...'"
                )
            value = expand_home(value) if isinstance(value, str) else value
        plus = "++" if special.entries.fullmatch(key) else ""
        found[key] = f"{plus}{key}={_in_grammar(value)}"
    return list(found.values())


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; ``run: {name: demo}`` and ``run.name: demo`` are the same."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _in_grammar(value: Any) -> str:
    """A value of a YAML file in Hydra's grammar.

    >>> _in_grammar([None, True, 1e-3, "a, b"])
    "[null,true,0.001,'a, b']"
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_in_grammar, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_in_grammar(item)}' for key, item in value.items())}}}"
    return quoted(value) if isinstance(value, str) else str(value)


def _place(path: Path, section: str) -> str:
    command, _, dataset = section.partition(" ")
    if dataset:
        return f"{_shown(path)}, section retrain, {command} of the data set {dataset}"
    return f"{_shown(path)}, section {section}"


def _shown(path: Path) -> Path:
    """As a user calls it: our own files from the repository's root."""
    return path.relative_to(CONF.parent) if path.is_relative_to(CONF) else path


def _check(path: Path, section: str, overrides: list[str]) -> None:
    """Compose a section alone, so that each command refuses what any of them would.

    A choice that is left to the command line is made for it, and settings inside that choice are
    checked when the command itself composes them.
    """
    command = section.partition(" ")[0]
    chosen = {key_of(text) for text in overrides}
    for group in (name for name, default in groups(command).items() if not default):
        if group not in chosen:
            outside = [text for text in overrides if not key_of(text).startswith(f"{group}.")]
            overrides = [f"{group}={choices(group)[0]}", *outside]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(command, overrides)
        assert isinstance(cfg, DictConfig)
        check_given(cfg)
    except UserError as error:
        raise UserError(f"{_place(path, section)}: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        said = explain(error, overrides, command)
        raise UserError(f"{_place(path, section)}: {said}") from error
