"""What lies where in a trained run: its curations, its training's identity and configuration, its exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.run.datasets import run_of
from curate.run.files import read_json, sha256_once
from curate.run.finished import RECORD
from curate.run.manifest import Manifest, old_manifest
from curate.run.provenance import read_config

WEIGHTS = (
    ".safetensors",
    ".bin",
)  # files that hold a model; others, such as a card, may be alike in many


def training_config(run_dir: Path) -> dict[str, Any]:
    """The training's ``config.yaml``; empty where there is none that can be read."""
    return read_config(run_dir / "finetune" / "config.yaml")


def curate_dirs(run_dir: Path) -> list[Path]:
    """The curations that a run was trained on, or will be: ``data.runs``, ``data.run``, or its own."""
    data = training_config(run_dir).get("data") or {}
    named = list(weights(run_dir)) or [data.get("run")]
    return [(run_dir.with_name(name) if name else run_dir) / "curate" for name in named]


def weights(run_dir: Path) -> dict[str, float]:
    """The weights of several curations that a run was trained on, or will be, by the run of each; else empty."""
    config = training_config(run_dir)
    if config:
        return (config.get("data") or {}).get("runs") or {}
    known = (read_json(run_dir / RECORD, sealed=True) or {}).get("datasets", {})
    return {run_of(run_dir.name, name): each for name, each in known.items()}


def manifests(run_dir: Path) -> dict[Path, Manifest]:
    """Of the curations that are finished, by their folder."""
    found = {folder: old_manifest(folder) for folder in curate_dirs(run_dir)}
    return {folder: manifest for folder, manifest in found.items() if manifest}


def checkpoints(run_dir: Path) -> dict[str, dict[str, Any]]:
    """``state.json`` of each checkpoint by the name of its folder, the earliest first; damaged ones are left out."""
    folders = sorted((run_dir / "finetune" / "checkpoints").glob("step-*"))
    found = {folder.name: read_json(folder / "state.json") for folder in folders}
    return {name: state for name, state in found.items() if state}


def identity(run_dir: Path) -> dict[str, Any]:
    """What decided the training's losses, from its last checkpoint; empty where nothing was trained."""
    states = list(checkpoints(run_dir).values())
    return states[-1].get("identity", {}) if states else {}


def exports(run_dir: Path) -> list[Path]:
    """The folders of a training's exports, by name."""
    found = (run_dir / "finetune").glob("export*")
    return sorted(path for path in found if path.is_dir())


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it; hidden files are left out."""
    return {
        path.relative_to(folder).as_posix(): sha256_once(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


def weights_of(folder: Path) -> Iterator[Path]:
    """The files of an export that hold trained or copied weights."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix in WEIGHTS)
