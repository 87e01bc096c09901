"""The command ``python -m curate.verify``: whether the files of a run are what was written."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curate.pack.sample import EXTENSIONS, Sample, read_shard
from curate.run import checksums, cli, cores, folder, parquet
from curate.run.companions import KINDS, sha256_column
from curate.run.database import Limits
from curate.run.files import read_json, sha256_of
from curate.run.finished import is_finished, to_mend
from curate.run.joined import FOLDER, curations_of
from curate.run.ledger import parts, read_part
from curate.run.ledger_table import LedgerTable, check_complete, ledger_table
from curate.run.manifest import Manifest, ShardInfo, read_manifest
from curate.run.next_command import named, run_arguments
from curate.run.progress import Bar
from curate.run.provenance import curate_command
from curate.run.removals import read_removals
from curate.run.schema import UserError
from curate.run.threads import in_order

EXIT_PROBLEMS = 1
EXIT_CODES = (
    "exit codes: 0 all is well, 1 problems were found, 2 wrong input, 70 the program failed, "
    "130 interrupted"
)
STAGES = ("curate", FOLDER, "diff", "finetune", "evaluate", "compare")
SHOWN = 3  # keys in one line

_COLUMNS = [
    *("key", "caption_index", "kept", "rule", "reason", "status"),
    *("split", "duplicate_group", "shard"),
]
Rows = list[tuple[Any, ...]]
"""Keys and sides of a shard's pictures, as the ledger has them."""

_THREADS = min(8, cores.usable())  # that hash shards


def main() -> None:
    """Print one line for each problem, and one for each stage."""
    parser = folder.parser(
        "verify",
        "Whether the files of a run are what was written: every checksum, and whether shards, sidecars, "
        "ledger and manifest agree.",
        EXIT_CODES,
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="hash each picture as well; decode those that were encoded again",
    )
    arguments = parser.parse_args()
    run_dir = _run_dir(arguments.run)
    for curate_dir in curations_of(folder.curate_dir_of(run_dir)):
        if curate_dir.parent != run_dir:
            command = f"python -m curate.verify {named(curate_dir.parent)}"
            print(f"curate    of this training is {curate_dir}; to check it, type: {command}")
    found = {}
    for stage in STAGES:
        if (run_dir / stage).is_dir():
            lines = problems if stage == "curate" else stage_problems
            options = (arguments.images,) if stage == "curate" else ()
            found[stage] = 0
            for problem in lines(run_dir / stage, *options):
                Bar.write(f"{stage}/{problem}")
                found[stage] += 1
            print(f"{stage:9} {summary(run_dir / stage)}, {found[stage]} problems")
    if any(found.values()):
        print(advice(run_dir, [stage for stage, count in found.items() if count]))
    sys.exit(EXIT_PROBLEMS if any(found.values()) else 0)


def _run_dir(run: str) -> Path:
    """The run's folder; one that was trained on another run's curation has none of its own."""
    try:
        return folder.curate_dir(run).parent
    except FileNotFoundError as error:
        try:
            return folder.stage_dir(run, folder.TRAINED).parent
        except FileNotFoundError:
            raise error from None


def advice(run_dir: Path, stages: Sequence[str]) -> str:
    """What to type where there are problems in these stages."""
    train = (
        "the command that trained it: accelerate launch finetune/train.py "
        f"{run_arguments(run_dir)} with its other keys"
    )
    commands = {
        "curate": curate_command(run_dir),
        FOLDER: train,
        "finetune": f"{train}; of an export-step-N: python -m finetune.export "
        f"{shlex.quote(str(run_dir))} step=N",
        "evaluate": f"python -m evaluate {run_arguments(run_dir)}",
        "diff": f"python -m curate.diff RUN_A {named(run_dir)} with the run that the folder in diff is named after",
        "compare": f"python -m evaluate.compare {named(run_dir)} and the runs that its folders in compare are named after",
    }
    if is_finished(run_dir) and (written := _of_retraining(stages)):
        about = f"{', '.join(written)} in {run_dir}"
        others = [stage for stage in stages if stage not in written]
        return "\n".join(
            [
                f"of {about}: {to_mend(run_dir, '')}",
                *(f"of {stage}, type: {commands[stage]}" for stage in others),
            ]
        )
    lines = [
        "delete what is damaged (of a shard its tar, of a checkpoint its folder; never removed.json); to "
        "write it again, type:"
    ]
    return "\n".join([*lines, *(f"  {commands[stage]}" for stage in stages)])


def _of_retraining(stages: Sequence[str]) -> list[str]:
    """Those of the stages that no command writes in a run that a retraining has finished."""
    return [stage for stage in stages if stage in ("curate", "finetune", "evaluate")]


def summary(stage_dir: Path) -> str:
    """What of a stage was compared with what."""
    listed = checksums.read(stage_dir)
    if listed is None:
        said = f"no {checksums.FILE}: of an earlier release, or interrupted"
    else:
        size = sum(entry["bytes"] for entry in listed.files.values())
        said = f"{len(listed.files)} files, {size / 1e6:.1f} MB"
        if more := len(checksums.unlisted(stage_dir)):
            said += f" ({more} more are not in {checksums.FILE})"
    if stage_dir.name != "curate":
        return said
    tables = stage_dir.rglob("part-*.parquet")
    if old := sum(parquet.checksum_in(table) is None for table in tables):
        said += f", {old} tables of an earlier release without a checksum"
    shards = manifest.shards if (manifest := _manifest(stage_dir)) else ()
    return f"{said}; {len(shards)} shards, {sum(shard.samples for shard in shards)} samples"


def stage_problems(stage_dir: Path) -> Iterator[str]:
    """One line for each file of ``finetune``, ``evaluate`` or ``compare`` that is not what was written."""
    yield from _listed(stage_dir)
    unlisted = checksums.unlisted(stage_dir)
    yield from checksums.self_contradicting(stage_dir, unlisted)
    for name in unlisted:
        if Path(name).name == checksums.FILE:  # of a checkpoint, after an interruption
            inner = (stage_dir / name).parent
            yield from (f"{Path(name).parent}/{line}" for line in checksums.problems(inner))


def _listed(stage_dir: Path, hashed: Collection[str] = ()) -> Iterator[str]:
    if (stage_dir / checksums.FILE).exists():
        yield from checksums.problems(stage_dir, hashed)


def problems(curate_dir: Path, images: bool = False) -> Iterator[str]:
    """One line for each problem of a curation, as it is found.

    Args:
        curate_dir: a finished curation.
        images: also compare each picture's bytes with the sha256 of the source's file, which its json
            gives. One that was encoded again has another: it is decoded, and its size compared.

    Raises:
        FileNotFoundError: there is no manifest, or no ledger; one that is damaged is a problem.
        UserError: a removal was interrupted.
    """
    named = set()
    for line in _disagreements(curate_dir, images):
        named.add(line.partition(":")[0])
        yield line
    manifest = _manifest(curate_dir)
    hashed = {shard.path for shard in manifest.shards} if manifest else set()
    for line in [*_listed(curate_dir, hashed), *_annotations(curate_dir)]:
        if (name := line.partition(":")[0]) not in named:
            named.add(name)
            yield line


def _annotations(curate_dir: Path) -> Iterator[str]:
    names = [path.relative_to(curate_dir).as_posix() for path in curate_dir.glob("annotations/*.*")]
    yield from checksums.self_contradicting(curate_dir, sorted(names))


def _disagreements(curate_dir: Path, images: bool) -> Iterator[str]:
    """Whether shards, sidecars, ledger and manifest agree."""
    manifest = _manifest(curate_dir)
    damaged = _damaged_parts(curate_dir)
    yield from damaged
    yield from _removal(curate_dir)
    if read_json(curate_dir / "funnel.json") is None:
        yield "funnel.json: missing or damaged"
    with ExitStack() as stack:
        table = None
        if not damaged:
            place = Path(stack.enter_context(TemporaryDirectory()))
            table = stack.enter_context(ledger_table(parts(curate_dir), Limits.in_temporary(place)))
        if manifest is None:
            yield "manifest.json: damaged, so the shards cannot be checked against it"
        else:
            yield from _shards(curate_dir, manifest, table, images)
            yield from _strays(curate_dir, manifest)
        if table is not None:
            yield from _totals(manifest, table) if manifest else ()
            yield from _verdicts(table)


def _manifest(curate_dir: Path) -> Manifest | None:
    """The manifest; None where it is damaged."""
    path = curate_dir / "manifest.json"
    return None if path.is_file() and read_json(path) is None else read_manifest(curate_dir)


def _damaged_parts(curate_dir: Path) -> list[str]:
    """A line for each part of the ledger that is damaged."""
    damaged = []
    for path in parts(curate_dir):
        try:
            read_part(path, _COLUMNS)
        except UserError as error:
            damaged.append(f"ledger/{path.name}: damaged ({error.__cause__ or 'its checksum'})")
    return damaged


def _removal(curate_dir: Path) -> Iterator[str]:
    try:
        pending = read_removals(curate_dir).pending
    except UserError as error:
        yield str(error)
        return
    if pending:
        raise UserError(
            f"a removal from {curate_dir.parent} was interrupted; type the same "
            "python -m curate.remove again, it goes on"
        )


def _shards(
    curate_dir: Path, manifest: Manifest, ledger: LedgerTable | None, images: bool
) -> Iterator[str]:
    """Problems of all shards; ``ledger`` is None if it is damaged."""
    if ledger is not None:
        # Sorted, so that a shard's rows are found without reading those of all.
        ledger.connection.sql(
            "CREATE TEMP TABLE kept_pairs AS SELECT shard, key, split FROM ledger "
            "WHERE kept AND shard IS NOT NULL ORDER BY shard"
        )
    holders: dict[str, str] = {}
    bar = Bar(manifest.shards, desc="verify", unit="shard")
    for shard, found in zip(bar, _hashes(curate_dir, manifest.shards), strict=True):
        rows = None if ledger is None else _rows_of(ledger, shard.path)
        yield from _shard(curate_dir, shard, found, rows, images, holders)
    if ledger is not None:
        others = ledger.tuples(
            "SELECT shard, count(DISTINCT key) FROM kept_pairs "
            "WHERE shard NOT IN (SELECT unnest(?::VARCHAR[])) GROUP BY shard ORDER BY shard",
            [shard.path for shard in manifest.shards],
        )
        for path, count in others:
            yield f"{path}: the ledger keeps {count} pictures there, the manifest has none"


def _rows_of(ledger: LedgerTable, path: str) -> Rows:
    return ledger.tuples("SELECT DISTINCT key, split FROM kept_pairs WHERE shard = ?", path)


def _hashes(curate_dir: Path, shards: Sequence[ShardInfo]) -> Iterator[str]:
    """The hash of each tar, "" for one that is missing; threads are a few tars ahead."""

    def hash_of(shard: ShardInfo) -> str:
        path = curate_dir / shard.path
        return sha256_of(path) if path.is_file() else ""

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from in_order(pool, hash_of, shards, _THREADS)


def _shard(
    curate_dir: Path,
    shard: ShardInfo,
    sha256: str,
    rows: Rows | None,
    images: bool,
    holders: dict[str, str],
) -> Iterator[str]:
    """The tar with this hash, what lies beside it, and the ledger's rows of it.

    ``holders`` has the shard of each key.
    """
    path = curate_dir / shard.path
    if not path.is_file():
        yield f"{shard.path}: missing"
        return
    size = path.stat().st_size
    as_written = (size, sha256) == (shard.bytes, shard.sha256)
    if size != shard.bytes:
        yield f"{shard.path}: {size} bytes, and the manifest says {shard.bytes}"
    elif not as_written:
        yield f"{shard.path}: its sha256 is not the manifest's"
    keys: list[str] = []
    try:
        for sample in read_shard(path):
            keys.append(sample.key)
            yield from _sample(shard, sample)
            yield from _image(shard, sample, as_written) if images else ()
    except ValueError as error:
        yield f"{shard.path}: {error}"
    if len(keys) != shard.samples:
        yield f"{shard.path}: {len(keys)} samples, and the manifest says {shard.samples}"
    for key in keys:
        if (holder := holders.setdefault(key, shard.path)) != shard.path:
            yield f"{shard.path}: {key} is in {holder} as well"
    yield from _sidecar(path, shard, keys)
    yield from _stats(path, shard)
    if rows is not None:
        yield from _rows(shard, rows, keys)


def _rows(shard: ShardInfo, rows: Rows, keys: list[str]) -> Iterator[str]:
    yield from _differing(f"{shard.path}: the ledger", {key for key, _ in rows}, set(keys))
    if {split for _, split in rows} - {shard.split}:
        yield f"{shard.path}: the ledger has pictures of another side there"


def _sample(shard: ShardInfo, sample: Sample) -> Iterator[str]:
    meta = sample.meta
    if meta.get("key") != sample.key:
        yield f"{shard.path}: the json of {sample.key} is of {meta.get('key')}"
    if meta.get("split") != shard.split:
        yield f"{shard.path}: {sample.key} is of side {meta.get('split')}"


def _image(shard: ShardInfo, sample: Sample, as_written: bool) -> Iterator[str]:
    """``as_written``: the tar has the manifest's hash, so other bytes than the source's were meant."""
    from curate.measures.decode import UnreadableImage, decode, probe

    meta, where = sample.meta, f"{shard.path}: {sample.key}: the picture"
    for kind in KINDS:
        beside = sample.companions.get(kind)
        now = None if beside is None else hashlib.sha256(beside).hexdigest()
        if now != meta.get(sha256_column(kind)):
            yield f"{shard.path}: {sample.key}: its {kind} picture is not the one that its json says"
    if hashlib.sha256(sample.image).hexdigest() == meta.get("sha256"):
        return
    try:
        width, height, stored = probe(sample.image)
        decode(sample.image)
    except UnreadableImage as error:
        yield f"{where} is unreadable ({error.reason})"
        return
    says = meta.get("width", width), meta.get("height", height)
    if (width, height) != says:
        yield f"{where} has {width} x {height} px, and its json says {says[0]} x {says[1]}"
    elif not as_written and stored == meta.get("format") and stored in EXTENSIONS:
        yield f"{where} is damaged, or was encoded again: its sha256 is not its json's"


def _sidecar(path: Path, shard: ShardInfo, keys: list[str]) -> Iterator[str]:
    import pandas as pd

    table = path.with_suffix(".parquet")
    try:
        with parquet.reporting_damage(table, "delete it"):
            listed = pd.read_parquet(table, columns=["key"])["key"].tolist()
    except (OSError, UserError) as error:
        yield f"{shard.path}: its table {table.name} cannot be read ({error})"
        return
    yield from _differing(f"{shard.path}: its table", set(listed), set(keys))
    if listed != keys and set(listed) == set(keys):
        yield f"{shard.path}: its table has another order"


def _stats(path: Path, shard: ShardInfo) -> Iterator[str]:
    file = path.with_name(f"{path.stem}_stats.json")
    if not file.is_file():
        yield f"{shard.path}: {file.name} is missing"
        return
    stats = read_json(file)
    if stats is None:
        yield f"{shard.path}: {file.name} is damaged"
        return
    says = {"count": shard.samples, "bytes": shard.bytes, "sha256": shard.sha256}
    for name, value in says.items():
        if stats.get(name) != value:
            yield f"{shard.path}: {file.name} says {name} {stats.get(name)}, the manifest {value}"


def _differing(who: str, has: set[str], in_tar: set[str]) -> Iterator[str]:
    for keys, what in ((has - in_tar, "has, and the tar lacks"), (in_tar - has, "lacks")):
        if keys:
            some = ", ".join(sorted(keys)[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
            yield f"{who} {what} {len(keys)} keys: {some}"


def _strays(curate_dir: Path, manifest: Manifest) -> Iterator[str]:
    listed = {shard.path for shard in manifest.shards}
    for path in sorted((curate_dir / "shards").rglob("*.tar")):
        if (name := path.relative_to(curate_dir).as_posix()) not in listed:
            yield f"{name}: the manifest does not list it"


def _totals(manifest: Manifest, ledger: LedgerTable) -> Iterator[str]:
    has = {
        "pairs_in": ledger.pairs,
        **{
            status: ledger.count("status = ?", status)
            for status in ("kept", "dropped", "unreadable")
        },
        "samples": {
            side: ledger.images("kept AND split = ?", side) for side in manifest.totals["samples"]
        },
    }
    for name, says in manifest.totals.items():
        if has.get(name, says) != says:
            yield f"manifest.json: {name} is {says}, and the ledger has {has[name]}"


def _verdicts(ledger: LedgerTable) -> Iterator[str]:
    try:
        check_complete(ledger, ledger.pairs)
    except RuntimeError as error:
        yield f"ledger: {error}"
    for group, sides in ledger.tuples(
        "SELECT duplicate_group, count(DISTINCT split) FROM ledger WHERE kept AND duplicate_group != '' "
        "GROUP BY duplicate_group HAVING min(split) != max(split) ORDER BY duplicate_group"
    ):
        yield f"ledger: duplicate group {group} is on {sides} sides of the split"


if __name__ == "__main__":
    cli.run(main)
