"""The command ``python -m workflows.prune``: delete what was not used for longest from ``<run.root>/.cache``."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from curate.run import cli
from curate.run.locks import locked
from curate.run.schema import Busy, check
from curate.run.shared_cache import CACHE, ENTRIES, GB, LISTINGS, Entry, entries, remove_abandoned

_DOES = """\
Delete from RUNS/.cache what was not used for longest, until it holds at most so many gigabytes: measurements
of pictures and captions, latents, hidden states, listings of shards. All of it is made again when a run needs
it. Runs are not changed. What a running command uses stays, and so do measurements that a run's own
annotations/ has as well (a hard link): they take no room in the cache, and are not counted.

Without --keep-gb it only says what there is."""

_EXIT_CODES = (
    "exit codes: 0 done, 2 wrong input, 70 the program failed, 75 more is left, as running commands "
    "use it, 130 interrupted"
)


@dataclass
class Pruned:
    """What pruning did, or would do.

    Attributes:
        freed: the entries that were deleted.
        left: the bytes that are left.
        busy: why some entries were not looked at.
    """

    freed: list[Entry] = field(default_factory=list)
    left: int = 0
    busy: list[str] = field(default_factory=list)


def main() -> None:
    """Say what there is, delete, and say what that freed."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.prune",
        description=_DOES,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), metavar="RUNS", help="the run.root (%(default)s)"
    )
    parser.add_argument(
        "--keep-gb",
        type=float,
        metavar="N",
        help="how many gigabytes may stay; 0 deletes everything",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    asked = parser.parse_args()
    cache_dir = asked.root / CACHE
    if asked.keep_gb is not None:
        check(asked.keep_gb >= 0, "--keep-gb", asked.keep_gb, ">= 0")  # false of NaN too
    if not asked.root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {asked.root}; type --root FOLDER, the run.root"
        )
    held = list(entries(cache_dir))
    print(f"{cache_dir} holds {_gb(_size(held))}")
    print("\n".join(_by_kind(held)))
    if asked.keep_gb is None:
        again = f"python -m workflows.prune --root {asked.root} --keep-gb N"
        print(f"to keep at most N gigabytes, type: {again}")
        return
    done = prune(cache_dir, round(asked.keep_gb * GB), dry_run=asked.dry_run)
    print(f"{'would free' if asked.dry_run else 'freed'} {_gb(_size(done.freed))}")
    print("\n".join(_by_kind(done.freed)))
    if done.busy and done.left > asked.keep_gb * GB:
        raise Busy(
            f"{cache_dir} {'would hold' if asked.dry_run else 'holds'} {_gb(done.left)}, as some is in use: "
            f"{'; '.join(done.busy)}. Type the same command again when they have ended"
        )


def prune(cache_dir: Path, keep_bytes: int, *, dry_run: bool = False) -> Pruned:
    """Delete the entries that were not used for longest, until the others have at most ``keep_bytes``.

    Entries that a run has too free nothing and stay. Folders that a command uses are left alone.

    Raises:
        Busy: another pruning, or a removal, is at work.
    """
    done = Pruned()
    if not cache_dir.is_dir():
        return done
    with ExitStack() as stack:
        stack.enter_context(locked(cache_dir, "--root"))
        if not dry_run:
            remove_abandoned(cache_dir)
        found = [entry for entry in entries(cache_dir) if entry.bytes]
        free = _lock_all({entry.path.parent for entry in found}, stack, done.busy)
        done.left = _size(found)
        for entry in sorted(found, key=lambda entry: (entry.used_ns, entry.path)):
            if done.left <= keep_bytes:
                break
            if entry.path.parent in free:
                if not dry_run:
                    entry.path.unlink(missing_ok=True)
                done.freed.append(entry)
                done.left -= entry.bytes
    return done


def _lock_all(folders: Iterable[Path], stack: ExitStack, busy: list[str]) -> set[Path]:
    """Those that nobody uses, locked until ``stack`` ends; the others are noted in ``busy``."""
    free = set()
    for folder in sorted(folders):
        try:
            stack.enter_context(locked(folder, "--root"))
        except Busy as error:
            busy.append(str(error).partition(";")[0])
        else:
            free.add(folder)
    return free


def _size(found: Iterable[Entry]) -> int:
    return sum(entry.bytes for entry in found)


def _by_kind(found: Sequence[Entry]) -> Iterator[str]:
    """A line for each kind."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in found:
        groups[entry.kind].append(entry)
    for kind in ENTRIES:
        group = groups[kind]
        linked = sum(not entry.bytes for entry in group)
        more = f", and {linked} that runs have too" if linked else ""
        word = "listings" if kind == LISTINGS else kind
        yield f"  {word:12} {_gb(_size(group)):>9} in {len(group) - linked} files{more}"


def _gb(size: int) -> str:
    return f"{size / GB:.2f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    cli.run(main)
