"""The command ``python -m curate.remove``: take pictures out of a finished curation, for good."""

from __future__ import annotations

import argparse
import glob
import shlex
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curate.pipeline import removed_from_cache
from curate.pipeline.previous_run import trainings
from curate.readers.candidate import KEY
from curate.run import checksums, cli, folder, ledger, reconsider
from curate.run.config import DRY_RUN
from curate.run.files import (
    HashingWriter,
    atomic_write,
    read_json,
    remove_parts,
    sha256_of,
    write_certified,
)
from curate.run.finished import is_finished, to_mend
from curate.run.locks import locked
from curate.run.manifest import (
    Manifest,
    ShardInfo,
    read_funnel,
    read_manifest,
    stats_path,
    write_funnel,
    write_manifest,
)
from curate.run.next_command import named
from curate.run.parquet import is_intact, schema_as_written, write_table
from curate.run.printable import one_line
from curate.run.progress import Bar
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
from curate.run.schema import UserError
from curate.run.seen_by import seen_by
from curate.run.shared_cache import CACHE
from curate.run.tar import END_OF_TAR

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10  # listed items that are not in the run
_DESCRIPTION = """\
Remove pictures from a finished curation. Only the shards that hold them are rewritten; the ledger
says "removed". The same files under other keys are removed as well, and later curations of this run
leave them all out. After an interruption, the same command continues.

What all runs share of them in <run.root>/.cache goes too: measurements, thumbnails, captions, latents and
hidden states. The run's own annotations/ stays, as the record of what was measured, and so do finetune/ and
evaluate/ (made from the pictures before): delete these folders and type their commands again. Other runs
stay as they are; type this for each of them. It says which trainings were given the pictures; --dry-run
says that, and changes nothing."""


def main() -> None:
    """Record the removal, then carry it out."""
    arguments = _parser().parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    read_manifest(curate_dir)  # of an unfinished curation nothing can be removed
    option, path = _option(arguments)
    by = "keys" if arguments.table else option.removeprefix("--")
    listed = read_list(path, by) if arguments.table is None else reconsider.read_keys(path)
    if by == "keys":
        _refuse_names(curate_dir, path, listed)
    trained = trainings(curate_dir.parent)
    if arguments.dry_run:
        print("\n".join(_would(curate_dir, by, listed, arguments.copies, trained)))
        return
    with locked(curate_dir), removed_from_cache.exclusive(curate_dir):
        files = _files(curate_dir, by, listed, arguments.copies)
        found = remove(curate_dir, by, listed, sha256_of(path), arguments.copies)
        missing = sorted(listed - values(identities(curate_dir), by))
    lines = [
        *_done(curate_dir, by, found),
        *_not_here(curate_dir, by, missing, noted=True),
        *_seen_by(curate_dir, files),
        *([_of_trainings(curate_dir, trained, "now")] if found["pictures"] and trained else ()),
        *(_left(curate_dir, arguments) if found["found"] else ()),
        *_may_show(curate_dir, trained, found),
    ]
    print("\n".join(lines))


def _parser() -> argparse.ArgumentParser:
    parser = folder.parser("remove", _DESCRIPTION)
    given = parser.add_mutually_exclusive_group(required=True)
    for name, what in (("keys", "a key"), ("urls", "an address"), ("sha256", "a file's hash")):
        given.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{what} in each line")
    given.add_argument(
        "--from",
        dest="table",
        type=Path,
        metavar="FILE",
        help="a CSV table with a column key, such as evaluate/reconsider.csv after you deleted the rows of good pairs",
    )
    parser.add_argument(
        "--copies",
        action="store_true",
        help="also all near copies; otherwise a copy that was dropped may be kept by the next curation",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would be removed, and which trainings were given it",
    )
    return parser


def _refuse_names(curate_dir: Path, path: Path, listed: set[str]) -> None:
    """Refuse names of files, which no key can be: nothing would be removed, and a user believe it was.

    Raises:
        UserError: names the first one, and how its key is found.
    """
    names = sorted(each for each in listed if not KEY.fullmatch(each))
    if names:
        raise UserError(
            f"{path}: {one_line(names[0])!r} is no key, which has only letters, digits, - and _; nothing was removed. The "
            f"key of a file or its name: python -m curate.explain {named(curate_dir.parent)} {shlex.quote(names[0])}"
        )


def _done(curate_dir: Path, by: str, found: dict[str, Any]) -> Iterator[str]:
    """What was removed and deleted."""
    yield (
        f"{found['listed']} {by} listed, {found['found']} of them found; removed "
        f"{found['pictures']} pictures with {found['pairs']} pairs"
    )
    if taken := removed_from_cache.in_words(found["cache"]):
        yield f"deleted from {removed_from_cache.root_of(curate_dir) / CACHE}: {taken}"
    if found["pictures"]:
        again = f"; to write it again, type: {curate_command(curate_dir.parent)}"
        again = "" if is_finished(curate_dir.parent) else again
        yield f"{curate_dir / 'report.html'} was deleted, as it may show them{again}"


def _not_here(curate_dir: Path, by: str, missing: list[str], *, noted: bool) -> Iterator[str]:
    """What of the list the run does not have; ``noted`` for later curations, or not, in a trial."""
    if not missing:
        return
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    later = f"; a later curation leaves out pictures with these {by}" if noted else ""
    yield f"not in this run: {', '.join(missing[:SHOWN])}{more}{later}"
    if by == "keys":
        yield (
            "the key of a file or its name: python -m curate.explain "
            f"{named(curate_dir.parent)} FILE names it"
        )


def _may_show(curate_dir: Path, trained: list[Path], found: dict[str, Any]) -> Iterator[str]:
    """What may still show the removed pictures."""
    judged = [path.parent / stage for path in trained for stage in _pages(path.parent)]
    judged += _compared(curate_dir.parent)
    if found["pictures"] and (shown := [str(path) for path in judged if path.exists()]):
        yield f"their reports and samples may still show them; delete: {', '.join(shown)}"
    if found["copies_left"]:
        yield (
            f"{found['copies_left']} near copies remain, in the shards or dropped as duplicates; see them "
            "with python -m curate.explain, or type the same command with --copies"
        )


def _files(curate_dir: Path, by: str, listed: set[str], copies: bool) -> set[str]:
    """The sha256 of the files that a list names in a run, also of those that a rule dropped."""
    _, asked = asked_for(identities(curate_dir), by, listed, copies)
    return set(asked.sha256)


def _would(
    curate_dir: Path, by: str, listed: set[str], copies: bool, trained: list[Path]
) -> Iterator[str]:
    """What a removal would do, in lines."""
    rows = identities(curate_dir)
    _, asked = asked_for(rows, by, listed, copies)
    goes = rows[asked.drops(rows) & rows["kept"]]
    yield (
        f"would remove {goes['key'].nunique()} pictures with {len(goes)} pairs from {curate_dir.parent}; nothing was "
        "changed"
    )
    missing = sorted(listed - values(rows, by))
    yield from _not_here(curate_dir, by, missing, noted=False)
    yield from _seen_by(curate_dir, set(asked.sha256))
    if len(goes) and trained:
        yield _of_trainings(curate_dir, trained, "then")


def _seen_by(curate_dir: Path, files: set[str]) -> Iterator[str]:
    """Which trainings below the same root learned from these files, or were judged by them."""
    found = seen_by(curate_dir.parents[1], files) if files else {}
    for what, sides in (("trained on them", ("train",)), ("judged by them", ("val", "test"))):
        counts = {path: sum(each.get(side, 0) for side in sides) for path, each in found.items()}
        if said := [f"{path} ({count})" for path, count in counts.items() if count]:
            yield f"{what}: {', '.join(said)}"
    if any("train" in each for each in found.values()):
        yield (
            "a model does not forget them by a removal; which checkpoints and exports were made with one of them, "
            "python -m workflows.lineage KEY says"
        )


def _of_trainings(curate_dir: Path, trained: list[Path], when: str) -> str:
    """What becomes of trainings on the shards as they were."""
    again = "to train without these pictures, train again under another run.name"
    if is_finished(curate_dir.parent):
        again = "the next python -m workflows.retrain leaves these pictures out"
    return (
        f"trained on the shards as they were: {', '.join(map(str, trained))}. {when.capitalize()} they can neither go on "
        "nor be judged again. What was judged can still be compared (evaluate.compare, gate.against) on the other "
        f"pictures, and checkpoints still be exported and drawn from; {again}"
    )


def _pages(run_dir: Path) -> tuple[str, ...]:
    """What shows pictures in a judged run; of a finished retraining the figures stay, which the next is compared with."""
    judged = ("evaluate",)
    if is_finished(run_dir):
        judged = ("evaluate/samples", "evaluate/sample", "evaluate/report.html")
    return (*judged, "finetune/samples", "finetune/tracking", "compare")


def _compared(run_dir: Path) -> list[Path]:
    """The folders that python -m curate.diff may have written about a run, in it and in others beside it."""
    return [run_dir / "diff", *sorted(run_dir.parent.glob(f"*/diff/{glob.escape(run_dir.name)}"))]


def _left(curate_dir: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """What still holds the removed pictures and what was measured of them, and what to type."""
    run_dir, (option, path) = curate_dir.parent, _option(arguments)
    trial, record = run_dir / DRY_RUN, curate_dir / "annotations"
    if held := [str(folder) for folder in (record, trial) if folder.is_dir()]:
        yield (
            f"their measurements and captions are still in the run's own record; to delete them, type: rm -r "
            f"{shlex.join(held)}. The next curation then measures pictures that no run has in the cache"
        )
    options = [option, str(path), *(["--copies"] if arguments.copies else [])]
    others = removed_from_cache.other_runs(curate_dir, read_removals(curate_dir))
    for name, how_many in others.items():
        other = named(run_dir.with_name(name))
        yield f"run {name} holds {how_many}; type: python -m curate.remove {other} {shlex.join(options)}"


def _option(arguments: argparse.Namespace) -> tuple[str, Path]:
    """The option that names a file, and the file."""
    given = {f"--{name}": getattr(arguments, name) for name in ("keys", "urls", "sha256")}
    given["--from"] = arguments.table
    return next((name, path) for name, path in given.items() if path is not None)


def remove(
    curate_dir: Path, by: str, listed: set[str], list_sha256: str, copies: bool = False
) -> dict[str, Any]:
    """Check the shards concerned, record the removal, and carry it out; see ``removals.note``.

    Returns:
        The record, with what was deleted from the cache as ``cache``, by kind.

    Raises:
        UserError: as ``note``, or a shard is damaged: rewritten, it would look intact. Nothing is
            changed or recorded then.
    """
    _, asked = asked_for(identities(curate_dir), by, listed, copies)
    _check(curate_dir, asked)
    record = note(curate_dir, by, listed, list_sha256, copies)
    return record | {"cache": carry_out(curate_dir)}


def _check(curate_dir: Path, asked: Removals) -> None:
    """Raise if a shard that this or an interrupted removal concerns is damaged."""
    rows = identities(curate_dir)
    rows = rows[rows["kept"]]
    goes = asked.drops(rows) | read_removals(curate_dir).drops(rows)
    holding = set(rows.loc[~goes, "shard"])  # something, afterwards
    listed = {shard.path: shard for shard in read_manifest(curate_dir).shards}
    concerned = Bar(sorted(set(rows.loc[goes, "shard"])), desc="check", unit="shard")
    damaged = [
        path
        for path in concerned
        if not _is_whole(curate_dir / path, listed.get(path), path in holding)
    ]
    if damaged:
        run_dir = curate_dir.parent
        mend = to_mend(
            run_dir,
            f"delete each such tar, write it again by {curate_command(run_dir)}; then type this again",
        )
        raise UserError(
            f"{', '.join(damaged)}: damaged, not what the manifest of {run_dir} says; nothing was changed: {mend}"
        )


def _is_whole(path: Path, shard: ShardInfo | None, stays: bool) -> bool:
    """Whether tar and table can be rewritten; those of a shard that will be empty may be gone already.

    The tar has the hash of the manifest, or of the statistics if a removal was interrupted.
    """
    if not path.is_file():
        return not stays
    stats = read_json(stats_path(path)) or {}
    written = {(shard.bytes, shard.sha256)} if shard else set()
    if stats.get("plan") == REASON:
        written.add((stats["bytes"], stats["sha256"]))
    if (path.stat().st_size, sha256_of(path)) not in written:
        return False
    return not stays or _is_readable(path.with_suffix(".parquet"))


def _is_readable(table: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(table)
        return is_intact(table)
    except (OSError, pa.ArrowException):
        return False


def carry_out(curate_dir: Path) -> Counter[str]:
    """Make the cache, shards, ledger, funnel and, last, manifest follow ``removed.json``.

    Returns how much went from the cache. Each file is replaced whole. The ledger is last but one, so that until then it says which shards are
    concerned; doing all of it again changes nothing.
    """
    changes = ("shards/", "ledger/", "funnel.json", "manifest.json", "removed.json", "report.html")
    hashes: dict[str, str] = {}
    with checksums.updated(curate_dir, changes, hashes):
        manifest, taken = _carry_out(curate_dir, read_removals(curate_dir))
        hashes |= manifest.sha256_of_shards()  # most of them as they were
    return taken


def _carry_out(curate_dir: Path, known: Removals) -> tuple[Manifest, Counter[str]]:
    for part in ("shards", "ledger"):
        remove_parts(curate_dir / part)
    rows = identities(curate_dir)
    goes = rows[known.drops(rows) & rows["kept"]]
    if len(goes):
        (curate_dir / "report.html").unlink(missing_ok=True)  # it may show removed pictures
    concerned = {str(shard): keys for shard, keys in goes.groupby("shard")["key"].agg(set).items()}
    taken = removed_from_cache.take_out(curate_dir, known, concerned)
    for shard, keys in Bar(concerned.items(), desc="remove", unit="shard"):
        _take_out(curate_dir / shard, keys)
    for part in ledger.parts(curate_dir):
        _mark(part, known)
    rows = identities(curate_dir)
    manifest = _follow(curate_dir, read_manifest(curate_dir), rows)
    _write_funnel(curate_dir, manifest)
    write_manifest(curate_dir, manifest)
    write_removals(curate_dir, replace(known, pending=False))
    return manifest, taken


def _take_out(path: Path, keys: set[str]) -> None:
    """Rewrite one shard without ``keys``: tar, table, statistics. An empty one is deleted."""
    table_path, stats = path.with_suffix(".parquet"), stats_path(path)
    if not path.is_file():  # it was empty, and deleted before an interruption
        return
    with tarfile.open(path) as tar:
        left = [member for member in tar if member.name.partition(".")[0] not in keys]
    if not left:
        # The tar last: while it exists, an interrupted removal can continue.
        for file in (stats, table_path, path):
            file.unlink(missing_ok=True)
        return
    with atomic_write(path) as target:
        with path.open("rb") as source, HashingWriter(target) as hashing:
            _copy_members(source, left, hashing)
        count = _copy_table(table_path, keys)
        # No curation has a plan of this name, so the next one writes the shard again.
        written = {"count": count, "successes": count, "status_dict": {"success": count}}
        written |= {"plan": REASON, "bytes": target.tell(), "sha256": hashing.hexdigest()}
        # Before the tar, so that at any moment it has the hash of these or of the manifest.
        write_certified(stats, {**(read_json(stats) or {}), **written})


def _copy_members(source: IO[bytes], members: list[tarfile.TarInfo], target: HashingWriter) -> None:
    """A tar of these members, their bytes as they are."""
    for member in members:
        blocks = -(-member.size // tarfile.BLOCKSIZE)
        source.seek(member.offset)
        end = member.offset_data + blocks * tarfile.BLOCKSIZE
        target.write(source.read(end - member.offset))
    target.write(END_OF_TAR)


def _copy_table(path: Path, without: set[str]) -> int:
    """Rewrite the table without some rows; returns how many are left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table = table.filter(pa.array(key not in without for key in table["key"].to_pylist()))
    write_table(path, table)
    return len(table)


def _mark(part: Path, known: Removals) -> None:
    """Mark the ledger's rows of removed pictures that were kept: dropped, "removed"."""
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
    # Or its types would differ from those of parts that stay as they are.
    ledger.write_part(part, table, schema_as_written(part))


def _follow(curate_dir: Path, manifest: Manifest, rows: pd.DataFrame) -> Manifest:
    """The manifest of the remaining shards, from their statistics, with totals from the ledger."""
    kept = rows[rows["kept"]]
    holding = set(kept["shard"])
    shards = []
    for shard in manifest.shards:
        path = curate_dir / shard.path
        stats = read_json(stats_path(path)) or {}
        if stats.get("plan") == REASON:
            written = {name: stats[name] for name in ("bytes", "sha256")}
            shard = replace(shard, samples=stats["count"], **written)
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
    """Write the totals of the manifest; the removal is the last of the rules."""
    funnel = read_funnel(curate_dir)
    if not funnel:
        return
    rules, kept = funnel["rules"], manifest.totals["kept"]
    if rules[-1]["rule"] == REASON:
        rules.pop()
    rules.append({"rule": REASON, "dropped": rules[-1]["left"] - kept, "left": kept})
    removed_pairs = sum(rule["dropped"] for rule in rules if rule["rule"] == REASON)
    reasons = {**funnel["reasons"], REASON: removed_pairs}
    write_funnel(curate_dir, {**funnel, **manifest.totals, "rules": rules, "reasons": reasons})


if __name__ == "__main__":
    cli.run(main)
