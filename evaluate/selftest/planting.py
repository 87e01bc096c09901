"""Takes pictures out of a finished curation until few training pictures are left, as a small data set has them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from curate.run.manifest import read_manifest
from evaluate.selftest import commands
from finetune.data import keyed_seed
from finetune.sidecars import GROUP, read_columns


def thin_out(source: Path, target: Path, pictures: int, seed: int, log: Path) -> None:
    """Copy a curation and leave ``pictures`` of its training pictures; what is held out stays as it is.

    Args:
        source, target: folders of runs, with a folder ``curate`` in them.
        pictures: how many are left, of as many duplicate groups as there are.
        seed: of the choice.
        log: of the command that takes the others out.

    Raises:
        ValueError: the curation has fewer.
    """
    shutil.rmtree(target / "curate", ignore_errors=True)
    shutil.copytree(source / "curate", target / "curate")
    rows = training_rows(target / "curate")
    if len(rows) < pictures:
        raise ValueError(f"{source} has {len(rows)} training pictures, {pictures} are needed")
    listed = target / "removed.txt"
    listed.write_text("\n".join(ordered(rows, seed)[pictures:]) + "\n", encoding="utf-8")
    commands.run(log, commands.REMOVE, str(target), "--keys", str(listed))


def ordered(rows: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """Keys in an order by hash: one of each group first, then the others.

    Args:
        rows: key and duplicate group of each picture.
        seed: of the hash.

    >>> ordered([("a", "1"), ("b", "1"), ("c", "2")], seed=0)[-1] in ("a", "b")
    True
    """
    firsts: dict[str, str] = {}
    hashed = sorted(rows, key=lambda row: keyed_seed("thin out", seed, row[0]))
    for key, group in hashed:
        firsts.setdefault(group, key)
    return list(firsts.values()) + [key for key, group in hashed if firsts[group] != key]


def training_rows(curate_dir: Path) -> list[tuple[str, str]]:
    """Key and duplicate group of each picture of the split ``train``."""
    found: list[tuple[str, str]] = []
    for shard in read_manifest(curate_dir).shards_of("train"):
        table = read_columns(curate_dir, shard, ("key", GROUP))
        found += zip(table["key"].to_pylist(), table[GROUP].to_pylist(), strict=True)
    return found
