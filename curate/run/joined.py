"""Several curations that a training stands on together (``data.runs``): whose they are, and what names them.

The training's own folder ``joined`` lists the shards of all of them in a manifest like a curation's. The shards stay
where they are: a path in it leads out of the folder, such as ``../../mine/curate/shards/train/000000.tar``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from curate.run.files import read_json
from curate.run.next_command import named

FOLDER = "joined"
FILE = "curations.json"


def weights_of(curate_dir: Path) -> dict[str, float]:
    """The weight of each curation that a folder joins, by the name of its run; {} of a curation itself."""
    if curate_dir.name != FOLDER:
        return {}
    return (read_json(curate_dir / FILE, sealed=True) or {}).get("weights", {})


def curations_of(curate_dir: Path) -> list[Path]:
    """The curations that a folder joins; of a curation itself that."""
    names = weights_of(curate_dir)
    return [curation_of(curate_dir, name) for name in names] or [curate_dir]


def curation_of(joined: Path, name: str) -> Path:
    """Where the curation of a run is, from the folder that joins it with others."""
    return joined.parent.with_name(name) / "curate"


def path_of(curate_dir: Path, path: str) -> Path:
    """A shard's path from the one in a manifest; the folder need not exist."""
    return Path(os.path.normpath(curate_dir / path)) if path.startswith("..") else curate_dir / path


def owner_of(curate_dir: Path, path: str) -> Path:
    """The curation that a shard belongs to, from its path in a manifest."""
    return curation_of(curate_dir, Path(path).parts[2]) if path.startswith("..") else curate_dir


def named_runs(curations: Iterable[Path]) -> tuple[str, str]:
    """What to type as the argument RUN of a command about one pair, and a remark where that is not known.

    >>> named_runs([Path("runs/mine/curate")])
    ('mine', '')
    >>> named_runs([Path("runs/mine/curate"), Path("runs/photos/curate")])
    ('RUN', ', where RUN is mine or photos, whichever has the pair')
    """
    names = [named(curate_dir.parent) for curate_dir in curations]
    if len(names) == 1:
        return names[0], ""
    return "RUN", f", where RUN is {' or '.join(names)}, whichever has the pair"


def option(curate_dir: Path) -> str:
    """What to type to train on the same, quoted for a shell: ``data.run=...`` or ``data.runs=...``."""
    weights = weights_of(curate_dir)
    if not weights:
        return shlex.quote(f"data.run={curate_dir.parent.name}")
    return shlex.quote(f"data.runs={shown(weights)}")


def shown(weights: Mapping[str, float]) -> str:
    """As ``data.runs`` is typed.

    >>> shown({"mine": 1.0, "photos": 0.3})
    '{mine: 1, photos: 0.3}'
    """
    return "{" + ", ".join(f"{name}: {weight:g}" for name, weight in weights.items()) + "}"
