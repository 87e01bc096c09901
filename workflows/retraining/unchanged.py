"""The quick look: whether nothing changed since the last retraining that was started by the same words.

It compares stats of files and versions of packages, imports nothing that takes long, and never decides more
than "nothing to do": whatever it does not recognise is looked at in full.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from curate.run.files import contradicts_itself
from workflows.retraining import input_files, numbered
from workflows.retraining.input_files import Root

_SAID = ("--why", "--json", "why=true", "json=true")  # change what is printed only


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing changed since the last retraining of a series ended: its root, its name."""

    root: Path
    series: str


def digest_of(arguments: Sequence[str]) -> str:
    """Of a command line, without what changes only the output."""
    said = [text for text in arguments if text not in _SAID]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def look(arguments: Sequence[str]) -> Unchanged | None:
    """The series for which nothing changed; None where that has to be looked at in full."""
    given, cwd = digest_of(arguments), str(Path.cwd())
    roots = [text.partition("=")[2] for text in arguments if text.startswith("run.root=")]
    root = Path(os.path.expanduser(roots[-1] if roots else "runs"))  # noqa: PTH111 (for ~nobody)
    for path in sorted(root.glob("*-series/inputs.json")):
        try:
            head = json.loads(path.read_bytes())
            known = head["typed"] == given and head["cwd"] == cwd and head["quick"]
            series = path.parent.name.removesuffix("-series")
            ended = known and _has_ended(root, series) and _is_registered(path.parent)
            if ended and _is_same(head, root):
                return Unchanged(root, series)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _has_ended(root: Path, series: str) -> bool:
    """Whether the last run of a series has ended, and the file that names the promoted one is sound."""
    pointer = root / f"{series}-series" / "current.json"
    if pointer.exists() and contradicts_itself(pointer):
        return False
    records = [path / "retrain.json" for path in numbered.folders(root, series).values()]
    last = next((path for path in reversed(records) if path.is_file()), None)
    return last is not None and bool(json.loads(last.read_bytes())["outcome"])


def _is_registered(folder: Path) -> bool:
    """Whether the model registry, where there is one, is known to show the promoted run; see ``registry``."""
    path, pointer = folder / "registry.json", folder / "current.json"
    if not path.exists():
        return True
    export = json.loads(pointer.read_bytes())["export"] if pointer.exists() else ""
    return not contradicts_itself(path) and json.loads(path.read_bytes())["export"] == export


def _is_same(head: dict[str, Any], root: Path) -> bool:
    if any(_version(name) != said for name, said in head["packages"].items()):
        return False
    roots = [Root(**{**each, "suffixes": tuple(each["suffixes"])}) for each in head["roots"]]
    return input_files.digest(input_files.listed(roots, str(root))) == head["stats"]


def _version(name: str) -> str:
    """As ``provenance`` has it; "" of a package that is not installed."""
    if name == "python":
        return ".".join(map(str, sys.version_info[:3]))
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
