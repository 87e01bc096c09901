"""Say what belongs where when nothing lies at a data set's place."""

from __future__ import annotations

import glob
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from curate.readers.archives import gigabytes
from curate.readers.config import DatasetConfig
from curate.run.next_command import COMMANDS
from curate.run.overrides import key_of, section_of_command, typed
from curate.run.remote import is_remote

_PLACES = {"root": "FOLDER", "path": "FILE", "images_dir": "FOLDER"}  # keys of readers for them


def refuse_absent(config: DatasetConfig) -> None:
    """Refuse a data set of a known layout whose folder or files are not there.

    Raises:
        FileNotFoundError: in lines, where it was looked for, what to put there, what else to type.
    """
    if not config.layout:
        return
    for key, stands_for in _PLACES.items():
        place = getattr(config, key, None)
        if isinstance(place, str) and _is_absent(place, empty=key == "root"):
            home = place if key == "root" else Path("data", config.name)
            raise FileNotFoundError(
                f"dataset={config.name}: there is nothing at dataset.{key}={place}\n"
                f"  put into {home}: {config.layout}\n"
                f"  or type where it is: {_retyped(config, key)}={stands_for}{_fetchable(config)}"
            )


def _fetchable(config: DatasetConfig) -> str:
    """A line that says how it can be fetched; "" where it cannot."""
    if not hasattr(config, "download") or not config.archives:
        return ""
    host = urlsplit(config.archives[0].url).hostname
    size = gigabytes(config.archives)
    return f"\n  or have {size} fetched from {host}: {_retyped(config, 'download')}=true"


def _is_absent(place: str, empty: bool) -> bool:
    """Whether a path or pattern names nothing, or, if ``empty`` counts as nothing, an empty folder."""
    if is_remote(place):
        return False  # the reader says what is wrong
    path = Path(place)
    if path.is_dir():
        return empty and not any(path.iterdir())
    return not path.exists() and next(glob.iglob(place, recursive=True), None) is None  # noqa: PTH207


def _retyped(config: DatasetConfig, key: str) -> str:
    """The command line up to another value of a key; of a retraining, its own."""
    handed_on = section_of_command() == "retrain"
    name = f"curate.dataset.{key}" if handed_on else f"dataset.{key}"
    given = [text for text in typed() or [] if text[:2] != "--" and key_of(text) != name]
    command = COMMANDS["retrain" if handed_on else "curate"]
    return " ".join([command, shlex.join(given or [f"dataset={config.name}"]), name])
