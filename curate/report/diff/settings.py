"""What differs between the settings, fingerprints and versions of two curations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.run.provenance import read_config

_OF_THE_RUN = ("run", "provenance", "dry_run", "engine", "stage", "shard", "part")

Differing = dict[str, tuple[Any, ...]]
"""By name: the value before and the one now; None for one that a run lacks."""


def settings(before: Path, now: Path) -> tuple[Differing, Differing]:
    """The settings that differ, by dotted key, and the versions of program, Python and packages that do.

    The run's own name and place are left out. A run whose ``config.yaml`` cannot be read has no settings, see
    ``is_readable``.

    Args:
        before, now: the folders ``curate``.
    """
    configs = [read_config(folder / "config.yaml") for folder in (before, now)]
    if not all(configs):
        return {}, {}
    flat = [
        dict(_flat({name: config[name] for name in config if name not in _OF_THE_RUN}))
        for config in configs
    ]
    versions = [dict(_versions(config.get("provenance"))) for config in configs]
    return differing(*flat), differing(*versions)


def is_readable(curate_dir: Path) -> bool:
    """Whether a run's settings are known."""
    return bool(read_config(curate_dir / "config.yaml"))


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differing:
    """The names whose values differ, sorted."""
    return {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def both(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differing:
    """All names."""
    return {name: (before.get(name), now.get(name)) for name in sorted({*before, *now})}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif value != {}:  # a mapping without entries says as much as one that is not there
        yield key, value


def _versions(provenance: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(provenance, dict):
        yield from ((name, provenance.get(name)) for name in ("revision", "python"))
        packages = provenance.get("packages")
        yield from packages.items() if isinstance(packages, dict) else ()
