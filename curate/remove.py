"""The command ``python -m curate.remove``: take pictures out of a finished curation, for good."""

from __future__ import annotations

import argparse
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from curate import command, ledger, runs
from curate.files import atomic_write, locked, read_json, remove_parts, sha256_of, write_json
from curate.removed import REASON, Removed, identities, note, read_list, removed, write
from curate.shards import END_OF_TAR, Manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = """\
Take pictures out of a finished curation: out of the shards that hold them, and of no other; the
ledger says "removed". The same files under other keys go as well. Later curations of this run leave
out what was ever listed. Killed, the same command goes on where it stopped.

What it cannot reach: annotations/ keeps measurements and captions, finetune/ and evaluate/ what
was made from the pictures before. Delete these folders and type the commands again."""


def main() -> None:
    """Note what is asked for, then carry it out."""
    parser = runs.parser("remove", _DESCRIPTION)
    given = parser.add_mutually_exclusive_group(required=True)
    for name, what in (("keys", "a key"), ("urls", "an address"), ("sha256", "a file's hash")):
        given.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{what} in each line")
    parser.add_argument(
        "--copies",
        action="store_true",
        help="also all near copies; else one that was dropped as such takes the picture's place later",
    )
    arguments = parser.parse_args()
    curate_dir = runs.curate_dir(arguments.run)
    read_manifest(curate_dir)  # of an unfinished curation nothing can be removed
    by, path = _list(arguments)
    listed = read_list(path, by)
    with locked(curate_dir):
        found = note(curate_dir, by, listed, sha256_of(path), arguments.copies)
        carry_out(curate_dir)
    print(
        f"{found['listed']} {by} listed, {found['found']} of them found; removed "
        f"{found['pictures']} pictures with {found['pairs']} pairs. {curate_dir / 'report.html'} "
        "is gone, too: the curation's own command writes it anew"
    )
    if found["copies_left"]:
        print(
            f"{found['copies_left']} near copies are left; look at them with python -m curate.explain, "
            "or type the same command with --copies"
        )


def _list(arguments: argparse.Namespace) -> tuple[str, Path]:
    given = {name: getattr(arguments, name) for name in ("keys", "urls", "sha256")}
    return next((name, path) for name, path in given.items() if path is not None)


def carry_out(curate_dir: Path) -> None:
    """Make shards, ledger, funnel and, last, manifest follow ``removed.json``.

    Each file is replaced whole. The ledger follows when all shards have, so that until then it says
    which ones are concerned; to do all again changes nothing.
    """
    known = removed(curate_dir)
    for folder in ("shards", "ledger"):
        remove_parts(curate_dir / folder)
    rows = identities(curate_dir)
    goes = rows[known.drops(rows) & rows["kept"]]
    concerned = list(goes.groupby("shard")["key"].agg(set).items())
    for shard, keys in tqdm(concerned, desc="remove", unit="shard"):
        _take_out(curate_dir / str(shard), keys)
    for part in ledger.parts(curate_dir):
        _mark(part, known)
    # It may show what is gone.
    (curate_dir / "report.html").unlink(missing_ok=True)
    rows = identities(curate_dir)
    manifest = _follow(curate_dir, read_manifest(curate_dir), rows)
    _write_funnel(curate_dir, manifest)
    write_manifest(curate_dir, manifest)
    write(curate_dir, replace(known, pending=False))


def _take_out(path: Path, keys: set[str]) -> None:
    """Rewrite one shard without ``keys``: tar, table, statistics. One that is left empty goes."""
    table_path, stats_path = path.with_suffix(".parquet"), path.with_name(f"{path.stem}_stats.json")
    if not path.is_file():  # it was left empty, before an interruption
        return
    if not _copy_tar(path, keys):
        # The tar last: while it is there this can go on.
        for file in (stats_path, table_path, path):
            file.unlink(missing_ok=True)
        return
    count = _copy_table(table_path, keys)
    # A plan of this name is none that curation can have had, so it never takes the shard for whole.
    told = {"count": count, "successes": count, "status_dict": {"success": count}, "plan": REASON}
    told |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(stats_path, {**(read_json(stats_path) or {}), **told})


def _copy_tar(path: Path, without: set[str]) -> bool:
    """The same tar without some samples, the others' bytes as they are; False, and nothing, if none is left."""
    with tarfile.open(path) as tar:
        left = [member for member in tar if member.name.partition(".")[0] not in without]
    if not left:
        return False
    with path.open("rb") as source, atomic_write(path) as target:
        for member in left:
            blocks = -(-member.size // tarfile.BLOCKSIZE)
            source.seek(member.offset)
            end = member.offset_data + blocks * tarfile.BLOCKSIZE
            target.write(source.read(end - member.offset))
        target.write(END_OF_TAR)
    return True


def _copy_table(path: Path, without: set[str]) -> int:
    """The same table without some rows; how many are left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table = table.filter(pa.array(key not in without for key in table["key"].to_pylist()))
    with atomic_write(path) as stream:
        pq.write_table(table, stream)
    return len(table)


def _mark(part: Path, known: Removed) -> None:
    """The ledger's rows of what was kept until now: dropped, "removed"."""
    table = ledger.read_part(part)
    gone = known.drops(table) & table["kept"]
    if not gone.any():
        return
    verdict = {"kept": False, "reason": REASON, "status": "dropped", "split": "", "shard": ""}
    for name, value in verdict.items():
        table.loc[gone, name] = value
    with atomic_write(part) as stream:
        table.to_parquet(stream, index=False)


def _follow(curate_dir: Path, manifest: Manifest, rows: pd.DataFrame) -> Manifest:
    """The manifest of what is left: rewritten shards by their statistics, totals by the ledger."""
    kept = rows[rows["kept"]]
    holding = set(kept["shard"])
    shards = []
    for shard in manifest.shards:
        path = curate_dir / shard.path
        stats_path = path.with_name(f"{path.stem}_stats.json")
        stats = read_json(stats_path) or {}
        if stats.get("plan") == REASON:
            told = {name: stats[name] for name in ("bytes", "sha256")}
            shard = replace(shard, samples=stats["count"], **told)
        if shard.path in holding:
            shards.append(shard)
    statuses = rows["status"].value_counts()
    sides = kept.drop_duplicates("key")["split"].value_counts()
    totals = dict(manifest.totals)
    for status in ("kept", "dropped", "unreadable"):
        totals[status] = int(statuses.get(status, 0))
    totals["samples"] = {side: int(sides.get(side, 0)) for side in totals["samples"]}
    return replace(manifest, shards=tuple(shards), totals=totals)


def _write_funnel(curate_dir: Path, manifest: Manifest) -> None:
    """Its totals are the manifest's; what was taken is the last of its rules."""
    path = curate_dir / "funnel.json"
    funnel = read_json(path)
    if funnel is None:
        return
    rules, kept = funnel["rules"], manifest.totals["kept"]
    if rules[-1]["rule"] == REASON:
        rules.pop()
    rules.append({"rule": REASON, "dropped": rules[-1]["left"] - kept, "left": kept})
    taken = sum(rule["dropped"] for rule in rules if rule["rule"] == REASON)
    reasons = {**funnel["reasons"], REASON: taken}
    write_json(path, {**funnel, **manifest.totals, "rules": rules, "reasons": reasons})


if __name__ == "__main__":
    command.run(main)
