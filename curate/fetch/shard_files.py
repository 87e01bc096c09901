"""Where the files of a shard are, and what they say of it.

Of shard 3 in ``FOLDER``: ``000003.tar`` with a picture, its notes and its caption for each row that has one,
``000003.parquet`` with every row, ``000003_stats.json``. The last one has the hashes of both and is written
last: a shard without it, or with other files than it says, is not finished.

What is not finished is in ``FOLDER/.fetch``: the journal; the files while they are written; and, of a shard that
is begun again, its tar under another name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from curate.fetch.answer import STATES, STORED
from curate.run import parquet
from curate.run.files import read_json
from curate.run.schema import UserError

WORK = ".fetch"
_SHARD_DIGITS = 6


class ShardFiles:
    """Where the files of one shard are."""

    def __init__(self, folder: Path, number: int) -> None:
        name = f"{number:0{_SHARD_DIGITS}d}"
        self.folder, self.work = folder, folder / WORK
        self.names = (f"{name}.tar", f"{name}.parquet", f"{name}_stats.json")
        self.tar, self.table, self.stats = (folder / each for each in self.names)
        self.journal = self.work / f"{name}.journal"
        self.earlier_tar = self.work / f"{name}.earlier.tar"

    def is_begun_again(self) -> bool:
        """Whether the shard was finished, and is to be replaced."""
        return self.journal.exists() and self.earlier_tar.exists() and self.table.exists()

    def finished(self) -> dict[str, Any] | None:
        """What the statistics say; None where the shard is not finished, or its files have other sizes."""
        stats = read_json(self.stats, sealed=True)
        if stats is None:
            return None
        for path, kind in ((self.tar, "tar"), (self.table, "parquet")):
            if not path.is_file() or path.stat().st_size != stats.get(f"{kind}_bytes"):
                return None
        return stats


def key_of(shard: int, index: int, rows_per_shard: int) -> str:
    """The key of a sample as img2dataset numbers them, with six digits for the shard.

    >>> key_of(3, 42, 10_000)
    '0000030042'
    """
    digits = index_digits(rows_per_shard)
    return f"{shard * 10**digits + index:0{_SHARD_DIGITS + digits}d}"


def index_digits(rows_per_shard: int) -> int:
    """Digits of a row's number in its shard, as img2dataset counts them."""
    return len(str(rows_per_shard - 1)) if rows_per_shard > 1 else 0


def states_of(stats: Mapping[str, Any]) -> Counter[str]:
    """How many rows of a finished shard ended in each state."""
    counts = Counter(stats["status_dict"])
    counts[STORED] = counts.pop("success", 0)
    return +counts


def indices_of(files: ShardFiles, number: int, rows_per_shard: int) -> set[int]:
    """The rows of a finished shard."""
    first = number * 10 ** index_digits(rows_per_shard)
    return {int(row["key"]) - first for row in rows_of(files, ["key"])}


def answers_of(
    files: ShardFiles, number: int, rows_per_shard: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Of each row of a finished shard its number there, and what decides whether its answer stands."""
    first = number * 10 ** index_digits(rows_per_shard)
    columns = ["key", "state", "error_message", "sha256", "md5", "settings"]
    for row in rows_of(files, columns):
        yield int(row["key"]) - first, row | {"error": error_in(row)}


def rows_of(files: ShardFiles, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a finished shard's table, in order."""
    import pyarrow.parquet as pq

    with parquet.reporting_damage(files.table, "delete it, and type the same command again"):
        return pq.read_table(files.table, columns=columns).to_pylist()


def error_in(row: Mapping[str, Any]) -> str:
    """What exactly was wrong, out of what ``shards`` wrote of it."""
    said = row["error_message"] or ""
    return said.removeprefix(STATES[row["state"]]).removeprefix(": ")


def states_in(folder: Path) -> Counter[str]:
    """How many rows of the finished shards in a folder ended in each state."""
    return sum((states_of(found) for _, found in finished_in(folder)), Counter[str]())


def is_asking_again(folder: Path) -> bool:
    """Whether a shard in a folder is to be replaced by one that is not complete yet."""
    return any(ShardFiles(folder, number).is_begun_again() for number in begun_in(folder))


def begun_in(folder: Path) -> list[int]:
    """The numbers of the shards that have a journal; files of other names are none."""
    names = [path.stem for path in (folder / WORK).glob("*.journal")]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def finished_in(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and statistics of each finished shard."""
    for path in sorted(folder.glob("*_stats.json")):
        number = path.name.removesuffix("_stats.json")
        if (
            number.isascii()
            and number.isdecimal()
            and (found := ShardFiles(folder, int(number)).finished())
        ):
            yield int(number), found


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left beside the journals."""
    work = folder / WORK
    kept = {path.name.removesuffix(".journal") for path in work.glob("*.journal")}
    for path in [*work.glob("*"), *work.glob(".*.part")]:
        is_earlier = path.name.endswith(".earlier.tar") and path.name.partition(".")[0] in kept
        if path.suffix != ".journal" and not is_earlier:
            with suppress(IsADirectoryError):
                path.unlink(missing_ok=True)


def damaged(files: ShardFiles) -> UserError:
    """What to raise where a tar does not have the pictures that the table lists."""
    names = " ".join(str(files.folder / name) for name in files.names)
    return UserError(
        f"{files.tar} is damaged: its pictures are not those that {files.table.name} lists. To fetch "
        f"them again, type: rm -f {names} {files.journal}; then the same command again"
    )
