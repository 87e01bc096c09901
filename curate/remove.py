"""The command ``python -m curate.remove``: take pictures out of a finished curation, for good."""

from __future__ import annotations

import argparse
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tqdm import tqdm

from curate.run import cli, folder, ledger
from curate.run.cli import UserError
from curate.run.files import (
    HashingWriter,
    atomic_write,
    locked,
    read_json,
    remove_parts,
    sha256_of,
    write_json,
)
from curate.run.manifest import Manifest, ShardInfo, read_manifest, stats_path, write_manifest
from curate.run.provenance import curate_command
from curate.run.removals import (
    REASON,
    Removals,
    asked_for,
    identities,
    note,
    read_list,
    read_removals,
    values,
    write_removals,
)
from curate.run.tar import END_OF_TAR

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10  # of what is not found
_DESCRIPTION = """\
Take pictures out of a finished curation: out of the shards that hold them, and of no other; the
ledger says "removed". The same files under other keys go as well. Later curations of this run leave
out what was ever listed. Killed, the same command goes on where it stopped.

What it cannot reach: annotations/ keeps measurements and captions, finetune/ and evaluate/ what
was made from the pictures before. Delete these folders and type the commands again."""


def main() -> None:
    """Note what is asked for, then carry it out."""
    parser = folder.parser("remove", _DESCRIPTION)
    given = parser.add_mutually_exclusive_group(required=True)
    for name, what in (("keys", "a key"), ("urls", "an address"), ("sha256", "a file's hash")):
        given.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{what} in each line")
    parser.add_argument(
        "--copies",
        action="store_true",
        help="also all near copies; else one that was dropped as such takes the picture's place later",
    )
    arguments = parser.parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    read_manifest(curate_dir)  # of an unfinished curation nothing can be removed
    by, path = _list(arguments)
    listed = read_list(path, by)
    with locked(curate_dir):
        found = remove(curate_dir, by, listed, sha256_of(path), arguments.copies)
        missing = sorted(listed - values(identities(curate_dir), by))
    print(
        f"{found['listed']} {by} listed, {found['found']} of them found; removed "
        f"{found['pictures']} pictures with {found['pairs']} pairs"
    )
    if missing:
        others = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        print(f"not in this run: {', '.join(missing[:SHOWN])}{others}; a later curation heeds them")
    if found["pictures"]:
        print(
            f"{curate_dir / 'report.html'} is gone, too; to write it again, type: "
            f"{curate_command(curate_dir.parent)}"
        )
    if found["copies_left"]:
        print(
            f"{found['copies_left']} near copies are left, in the shards or dropped as copies so far; look "
            "at them with python -m curate.explain, or type the same command with --copies"
        )


def _list(arguments: argparse.Namespace) -> tuple[str, Path]:
    given = {name: getattr(arguments, name) for name in ("keys", "urls", "sha256")}
    return next((name, path) for name, path in given.items() if path is not None)


def remove(
    curate_dir: Path, by: str, listed: set[str], list_sha256: str, copies: bool = False
) -> dict[str, Any]:
    """Check the shards concerned, note what is to go, and carry it out; see ``removed.note``.

    Raises:
        UserError: as ``note``, or a shard is damaged: rewritten, it would pass for whole. Nothing is
            changed or noted then.
    """
    _, asked = asked_for(identities(curate_dir), by, listed, copies)
    _check(curate_dir, asked)
    record = note(curate_dir, by, listed, list_sha256, copies)
    carry_out(curate_dir)
    return record


def _check(curate_dir: Path, asked: Removals) -> None:
    """Raise where a shard that this or an interrupted removal concerns is not what was written."""
    rows = identities(curate_dir)
    rows = rows[rows["kept"]]
    goes = asked.drops(rows) | read_removals(curate_dir).drops(rows)
    holding = set(rows.loc[~goes, "shard"])  # something, afterwards
    listed = {shard.path: shard for shard in read_manifest(curate_dir).shards}
    concerned = tqdm(sorted(set(rows.loc[goes, "shard"])), desc="check", unit="shard")
    damaged = [
        path
        for path in concerned
        if not _is_whole(curate_dir / path, listed.get(path), path in holding)
    ]
    if damaged:
        raise UserError(
            f"{', '.join(damaged)}: damaged, not what the manifest of {curate_dir.parent} says; nothing "
            "was changed. Delete each such tar, write it again by "
            f"{curate_command(curate_dir.parent)}; then type this again"
        )


def _is_whole(path: Path, shard: ShardInfo | None, stays: bool) -> bool:
    """Whether tar and table can be rewritten; of a shard that does not stay both may be gone already.

    The tar is as the manifest says, or, where a removal was interrupted, as that one's statistics do.
    """
    if not path.is_file():
        return not stays
    stats = read_json(stats_path(path)) or {}
    told = {(shard.bytes, shard.sha256)} if shard else set()
    if stats.get("plan") == REASON:
        told.add((stats["bytes"], stats["sha256"]))
    if (path.stat().st_size, sha256_of(path)) not in told:
        return False
    return not stays or _is_readable(path.with_suffix(".parquet"))


def _is_readable(table: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(table)
    except (OSError, pa.ArrowException):
        return False
    return True


def carry_out(curate_dir: Path) -> None:
    """Make shards, ledger, funnel and, last, manifest follow ``removed.json``.

    Each file is replaced whole. The ledger follows when all shards have, so that until then it says
    which ones are concerned; to do all again changes nothing.
    """
    known = read_removals(curate_dir)
    for part in ("shards", "ledger"):
        remove_parts(curate_dir / part)
    rows = identities(curate_dir)
    goes = rows[known.drops(rows) & rows["kept"]]
    if len(goes):
        (curate_dir / "report.html").unlink(missing_ok=True)  # it may show what goes
    concerned = list(goes.groupby("shard")["key"].agg(set).items())
    for shard, keys in tqdm(concerned, desc="remove", unit="shard"):
        _take_out(curate_dir / str(shard), keys)
    for part in ledger.parts(curate_dir):
        _mark(part, known)
    rows = identities(curate_dir)
    manifest = _follow(curate_dir, read_manifest(curate_dir), rows)
    _write_funnel(curate_dir, manifest)
    write_manifest(curate_dir, manifest)
    write_removals(curate_dir, replace(known, pending=False))


def _take_out(path: Path, keys: set[str]) -> None:
    """Rewrite one shard without ``keys``: tar, table, statistics. One that is left empty goes."""
    table_path, stats = path.with_suffix(".parquet"), stats_path(path)
    if not path.is_file():  # it was left empty, before an interruption
        return
    with tarfile.open(path) as tar:
        left = [member for member in tar if member.name.partition(".")[0] not in keys]
    if not left:
        # The tar last: while it is there this can go on.
        for file in (stats, table_path, path):
            file.unlink(missing_ok=True)
        return
    with atomic_write(path) as target:
        with path.open("rb") as source, HashingWriter(target) as hashing:
            _copy_members(source, left, hashing)
        count = _copy_table(table_path, keys)
        # A plan of this name is none that curation can have had, so it never takes the shard for whole.
        told = {"count": count, "successes": count, "status_dict": {"success": count}}
        told |= {"plan": REASON, "bytes": target.tell(), "sha256": hashing.hexdigest()}
        # Ahead of the tar, so that at any moment it is what these say, or what the manifest does.
        write_json(stats, {**(read_json(stats) or {}), **told})


def _copy_members(source: IO[bytes], members: list[tarfile.TarInfo], target: HashingWriter) -> None:
    """A tar of these members, their bytes as they are."""
    for member in members:
        blocks = -(-member.size // tarfile.BLOCKSIZE)
        source.seek(member.offset)
        end = member.offset_data + blocks * tarfile.BLOCKSIZE
        target.write(source.read(end - member.offset))
    target.write(END_OF_TAR)


def _copy_table(path: Path, without: set[str]) -> int:
    """The same table without some rows; how many are left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table = table.filter(pa.array(key not in without for key in table["key"].to_pylist()))
    with atomic_write(path) as stream:
        pq.write_table(table, stream)
    return len(table)


def _mark(part: Path, known: Removals) -> None:
    """The ledger's rows of what was kept until now: dropped, "removed"."""
    table = ledger.read_part(part)
    gone = known.drops(table) & table["kept"]
    if not gone.any():
        return
    verdict = {
        "kept": False,
        "rule": REASON,
        "reason": REASON,
        "status": "dropped",
        "split": "",
        "shard": "",
    }
    for name in table.columns.intersection(list(verdict)):
        table.loc[gone, name] = verdict[name]
    ledger.write_part(part, table, ledger.schema(part))


def _follow(curate_dir: Path, manifest: Manifest, rows: pd.DataFrame) -> Manifest:
    """The manifest of what is left: rewritten shards by their statistics, totals by the ledger."""
    kept = rows[rows["kept"]]
    holding = set(kept["shard"])
    shards = []
    for shard in manifest.shards:
        path = curate_dir / shard.path
        stats = read_json(stats_path(path)) or {}
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
    cli.run(main)
