"""The quick look: whether nothing changed since the last retraining that was started by the same words.

It compares stats of files and versions of packages, imports nothing but the standard library, and never
decides more than "nothing to do": whatever it does not recognise is looked at in full.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from workflows.retraining import input_files
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
    root = Path(roots[-1] if roots else "runs")
    for path in sorted(root.glob("*-series/inputs.json")):
        try:
            head = json.loads(path.read_bytes())
            known = head["typed"] == given and head["cwd"] == cwd and head["quick"]
            series = path.parent.name.removesuffix("-series")
            if known and not _is_open(root, series) and _is_same(head, root):
                return Unchanged(root, series)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _is_open(root: Path, series: str) -> bool:
    """Whether the last run of a series has not ended."""
    numbered = [p for p in root.glob(f"{series}-*") if p.name.removeprefix(f"{series}-").isdigit()]
    last = max(numbered, key=lambda p: int(p.name.rpartition("-")[2]), default=None)
    if last is None:
        return True
    return not json.loads((last / "retrain.json").read_bytes())["outcome"]


def _is_same(head: dict[str, Any], root: Path) -> bool:
    if any(_version(name) != said for name, said in head["packages"].items()):
        return False
    roots = [Root(**{**each, "suffixes": tuple(each["suffixes"])}) for each in head["roots"]]
    return input_files.digest(input_files.listed(roots, str(root.resolve()))) == head["stats"]


def _version(name: str) -> str | None:
    try:
        return python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return None
