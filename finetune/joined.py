"""Training on several curations at once (``data.runs``): checked, listed in one manifest, drawn from by weight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.decide.config import HELD_OUT
from curate.run import checksums, provenance
from curate.run.files import read_json, write_certified
from curate.run.joined import FILE, curation_of, owner_of
from curate.run.manifest import Manifest, ShardInfo, old_manifest, read_manifest, write_manifest
from curate.run.schema import UserError
from finetune.config import TrainConfig
from finetune.sidecars import identifiers, read_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_SIDES = ("train", *HELD_OUT)
_CLIP = ("name", "pretrained")  # what a similarity depends on and a configuration says


def read(config: TrainConfig) -> Manifest:
    """The manifest of the data that a training stands on; of several curations that of all their shards.

    Raises:
        FileNotFoundError, UserError: there is no finished curation, or the curations cannot be joined.
    """
    if not config.data.runs:
        return read_manifest(config.curate_dir)
    names = sorted(config.data.runs)
    curations = {name: curation_of(config.curate_dir, name) for name in names}
    manifests = {name: read_manifest(folder) for name, folder in curations.items()}
    _refuse_two_clips(curations)
    _refuse_shared(curations, manifests)
    return _joined(config.curate_dir, curations, manifests)


def manifest_of(place: Path, curations: Sequence[Path]) -> Manifest:
    """What :func:`read` returns of the folders ``curate`` of finished curations, before a training joins them in ``place``."""
    named = {folder.parent.name: folder for folder in sorted(curations)}
    return _joined(place, named, {name: read_manifest(each) for name, each in named.items()})


def _joined(
    place: Path, curations: Mapping[str, Path], manifests: Mapping[str, Manifest]
) -> Manifest:
    """One manifest of all shards, by side, then by curation; it is the same whatever the order and the weights."""

    def moved(name: str, shard: ShardInfo) -> ShardInfo:
        return replace(shard, path=os.path.relpath(curations[name] / shard.path, place))

    shards = [
        moved(name, shard)
        for side in _SIDES
        for name, manifest in manifests.items()
        for shard in manifest.shards_of(side)
    ]
    counts = ("pairs_in", "kept", "dropped", "unreadable")
    totals = {count: sum(each.totals[count] for each in manifests.values()) for count in counts}
    fingerprint = {
        f"{name}/{what}": digest
        for name, manifest in manifests.items()
        for what, digest in manifest.fingerprint.items()
    }
    formats = dict.fromkeys(manifest.image_format for manifest in manifests.values())
    return Manifest(tuple(shards), totals, fingerprint, ", ".join(formats))


def _refuse_two_clips(curations: Mapping[str, Path]) -> None:
    """Similarities of two CLIPs are two measures; an evaluation orders training pictures by them."""
    known = {name: _clip(folder) for name, folder in curations.items()}
    for one, other in combinations(known, 2):
        if known[one] != known[other]:
            shown = [" ".join(str(part) for part in known[name].values()) for name in (one, other)]
            raise UserError(
                f"data.runs: {one} was scored with the CLIP {shown[0] or 'unknown'}, and {other} with "
                f"{shown[1] or 'unknown'}. Their similarities do not compare; curate one of them again with the other's "
                "clip="
            )


def _clip(curate_dir: Path) -> dict[str, Any]:
    """Name and weights of the CLIP that a curation's configuration names; {} where it names none."""
    found = provenance.read_config(curate_dir / "config.yaml").get("clip")
    return {name: found.get(name) for name in _CLIP} if isinstance(found, dict) else {}


def _refuse_shared(curations: Mapping[str, Path], manifests: Mapping[str, Manifest]) -> None:
    """Refuse equal keys in two curations, and what one holds out and another trains on.

    Raises:
        UserError: names both curations and what they share.
    """
    found = {
        (name, side): identifiers(curations[name], manifests[name], side)
        for name in curations
        for side in _SIDES
    }
    for one, other in combinations(curations, 2):
        keys = [
            set().union(*(found[name, side].get("key", ()) for side in _SIDES))
            for name in (one, other)
        ]
        if shared := sorted(keys[0] & keys[1]):
            raise UserError(
                f"data.runs: {one} and {other} have {len(shared)} equal keys, such as {shared[0]}, so that nothing "
                "tells their pictures apart. Give one curation all of them, or rename the files of one"
            )
        for held, trained in ((one, other), (other, one)):
            for side in HELD_OUT:
                _refuse_leak(held, side, found[held, side], trained, found[trained, "train"])


def _refuse_leak(
    held: str,
    side: str,
    held_out: Mapping[str, set[str]],
    trained: str,
    train: Mapping[str, set[str]],
) -> None:
    for column in held_out.keys() & train.keys():
        if shared := sorted(held_out[column] & train[column]):
            raise UserError(
                f"data.runs: {len(shared)} of the {side} samples of {held} are trained on in {trained}: {column} "
                f"{shared[0]} is in both, which would hide overfitting. Curate both data sets as one, which splits them "
                f"together, or take what {held} holds out from {trained} (python -m curate.remove {trained} --help)"
            )


def keep(config: TrainConfig, manifest: Manifest) -> None:
    """Write the folder ``joined``, unless it is there as it would be written."""
    place, names = config.curate_dir, sorted(config.data.runs)
    content = {"weights": {name: config.data.runs[name] for name in names}}
    known = read_json(place / FILE, sealed=True) == content and old_manifest(place) == manifest
    if known and not checksums.damaged(place):
        return
    with checksums.updated(place, ("",)):
        write_certified(place / FILE, content)
        write_manifest(place, manifest)


def sources(
    config: TrainConfig, manifest: Manifest, keys: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """Of each curation the places of its training pictures among ``keys``; None where there is only one.

    Raises:
        UserError: one has no training pictures.
    """
    if not config.data.runs:
        return None
    import numpy as np

    owner: dict[str, str] = {}
    for shard in manifest.shards_of("train"):
        name = owner_of(config.curate_dir, shard.path).parent.name
        listed = read_columns(config.curate_dir, shard, ("key",))["key"].to_pylist()
        owner |= dict.fromkeys(listed, name)
    places: dict[str, list[int]] = {name: [] for name in sorted(config.data.runs)}
    for place, key in enumerate(keys):
        places[owner[key]].append(place)
    if empty := [name for name, found in places.items() if not found]:
        raise UserError(
            f"data.runs: {empty[0]} has no pairs to train on; leave it out, or curate it again with other filters"
        )
    return {name: np.array(found, np.int64) for name, found in places.items()}
