"""Held-out pictures that the trainings behind a start (``method.init``) have seen: no held-out loss counts them.

In a series of curations, what was held out stays held out, with every group that it joins later (``split.held_out``).
So a new picture may join a held-out one to one that an earlier training was trained on, and the whole group is held
out from then on. A model that started with that training knows some of it. Such groups are left out of what training
and evaluation measure. Many of them are a sign of another split, and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from curate.decide.config import HELD_OUT
from curate.run.manifest import Manifest, read_manifest
from curate.run.schema import UserError
from finetune import start
from finetune.config import TrainConfig
from finetune.sidecars import GROUP, read_columns

LARGEST_LEFT_OUT = 0.2  # share of a held-out side, as for the pictures that two runs share
_IDENTITY = ("key", "sha256", GROUP)


def examine(config: TrainConfig, manifest: Manifest, *, silent: bool = False) -> list[str]:
    """The keys of such pictures; says how many they are, and where it is not known, unless ``silent``.

    All trainings behind the export count: the one that exported it, the one that that started with, and so on.

    Returns:
        Sorted; none of a run that has started already, which has noted its own.

    Raises:
        UserError: they are more than ``LARGEST_LEFT_OUT`` of a side; names the training, and what to do.
    """
    folder = start.examined(config)
    if folder is None:
        return []
    notes = []
    sides = {side: _identities(config.curate_dir, manifest, side) for side in HELD_OUT}
    seen: set[str] = set()
    for run_dir in start.ancestors(folder):
        curation = start.curation_of(run_dir) if run_dir else None
        if run_dir is None or curation is None:
            notes.append(_not_known(config, run_dir))
            continue
        train = _values(_identities(curation, read_manifest(curation), "train"))
        for side, pictures in sides.items():
            found = _seen(pictures, train)
            _refuse_many(config, run_dir, side, found, len(pictures["key"]))
            seen |= found
    if seen:
        notes.append(
            f"note: {len(seen):,} held-out pictures, or near copies of them, were trained on by the trainings behind "
            f"{start.option_of(config)}; no held-out loss counts them"
        )
    for note in () if silent else notes:
        start.say(note)
    return sorted(seen)


def _not_known(config: TrainConfig, run_dir: Path | None) -> str:
    gone = "not all trainings behind it are there"
    if run_dir:
        gone = f"the shards of {run_dir.name} are not there any more"
    return f"note: whether {start.option_of(config)} was trained on pictures that are held out here is not known: {gone}"


def _refuse_many(
    config: TrainConfig, run_dir: Path, side: str, found: Set[str], count: int
) -> None:
    if len(found) > LARGEST_LEFT_OUT * count:
        raise UserError(
            f"{len(found)} of the {count} {side} samples of {config.curate_dir.parent.name} were trained on by "
            f"{run_dir.name}, which {start.option_of(config)} comes from, such as {min(found)}. A held-out loss on them "
            "would look better than it is, so the two were split differently. Curations of a series hold out the same "
            "pictures by split.held_out=FILE; or remove method.init to start with the base"
        )


def _seen(pictures: Mapping[str, list[str]], train: Mapping[str, Set[str]]) -> set[str]:
    """Keys of pictures of which any column has a value of the training pictures, and of their groups' others."""
    rows = range(len(pictures["key"]))
    known = {row for row in rows if any(pictures[name][row] in train[name] for name in _IDENTITY)}
    groups = {pictures[GROUP][row] for row in known} - {""}
    return {pictures["key"][row] for row in rows if row in known or pictures[GROUP][row] in groups}


def _values(pictures: Mapping[str, list[str]]) -> dict[str, set[str]]:
    return {name: set(values) - {""} for name, values in pictures.items()}


def _identities(curate_dir: Path, manifest: Manifest, side: str) -> dict[str, list[str]]:
    """The columns of a side by which a picture is recognised, as text; "" where a table has none."""
    found: dict[str, list[str]] = {name: [] for name in _IDENTITY}
    for shard in manifest.shards_of(side):
        table = read_columns(curate_dir, shard, _IDENTITY)
        for name in _IDENTITY:
            values = table[name].to_pylist() if name in table.column_names else [None] * len(table)
            found[name] += ["" if value is None else str(value) for value in values]
    return found
