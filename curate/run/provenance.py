"""What a run was made from: configuration and command line without secrets, revision, versions."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from curate.run.config import DRY_RUN, NOTHING_KEPT
from curate.run.files import write_text
from curate.run.next_command import run_arguments
from curate.run.overrides import key_of, typed

PACKAGES = [
    "accelerate",
    "diffusers",
    "numpy",
    "open_clip_torch",
    "pandas",
    "peft",
    "pillow",
    "pyarrow",
    "safetensors",
    "timm",
    "torch",
    "transformers",
]
_OF_THE_RUN = ("run.name", "run.root", "run.replace")  # said again, or asked again
_OF_THE_RUN += ("stage", "shard")  # a finished curation is typed as a whole
_SEAL = "# sha256 of the lines above: "
_SECRET = re.compile(r"(^|_)token$|key$|secret|password", re.IGNORECASE)


def write_config(path: Path, config: Any) -> None:
    """Write a configuration dataclass as YAML, with ``provenance`` beside its own keys.

    Its ``overrides`` are the command line as it was typed; a configuration that no command composed
    has none. No time stamps: the same command in the same environment gives the same bytes.
    """
    content = {**redacted(asdict(config)), "provenance": provenance()}
    if (arguments := typed()) is not None:
        content["provenance"]["overrides"] = [redacted_override(text) for text in arguments]
    text = OmegaConf.to_yaml(OmegaConf.create(content))
    write_text(path, f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n")


def is_damaged(path: Path) -> bool:
    """Whether a configuration is not what ``write_config`` wrote; earlier releases wrote no checksum."""
    text, seal, said = path.read_bytes().rpartition(_SEAL.encode())
    return bool(seal) and hashlib.sha256(text).hexdigest().encode() != said.strip()


def read_config(path: Path) -> dict[str, Any]:
    """What ``write_config`` wrote; empty where there is none that can be read, or it is damaged."""
    try:
        if is_damaged(path):
            return {}
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


def curate_command(run_dir: Path) -> str:
    """The command that started the curation of a run, quoted for a shell.

    Where the run's configuration does not say how it was typed, its data set is left to the reader.
    """
    if run_dir.name == DRY_RUN:  # a trial's command is that of its run
        run_dir = run_dir.parent
    known = read_config(run_dir / "curate" / "config.yaml").get("provenance")
    if run_dir.name == NOTHING_KEPT:
        run_dir = run_dir.parent
    arguments = known.get("overrides") if isinstance(known, dict) else None
    if not isinstance(arguments, list):
        return f"python -m curate {run_arguments(run_dir)} with the keys of its data set"
    kept = [text for text in map(str, arguments) if key_of(text) not in _OF_THE_RUN]
    return f"{shlex.join(['python', '-m', 'curate', *kept])} {run_arguments(run_dir)}"


def redacted_override(text: str) -> str:
    """An override without its value, if a name in its key or in a mapping's value says that it is a secret."""
    key, equals, value = text.partition("=")
    names = re.findall(r"\w+", key)
    if value.lstrip("'\"").startswith("{"):
        names += re.findall(r"(\w+)\s*:", value)
    return f"{key}=***" if equals and any(map(_SECRET.search, names)) else text


def redacted(value: Any) -> Any:
    """The same nested value with secrets replaced, judged by the name of their key.

    >>> redacted({"hub": {"token": "abc", "tokens": None}})
    {'hub': {'token': '***', 'tokens': None}}
    """
    if isinstance(value, dict):
        return {
            name: "***" if item is not None and _SECRET.search(str(name)) else redacted(item)
            for name, item in value.items()
        }
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def provenance() -> dict[str, Any]:
    """Git revision of this program, Python and package versions."""
    return {
        "revision": _revision(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": versions(PACKAGES),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def _revision() -> str | None:
    """The commit that this file is from, "+" behind it where files differ; None outside a checkout."""
    try:
        return subprocess.run(
            [
                "git",
                "--no-optional-locks",
                "describe",
                "--always",
                "--abbrev=40",
                "--dirty=+",
                "--exclude=*",
            ],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
