"""What a folder of fetched pictures was fetched from: ``fetch.json``, by which another table is refused.

The rows of a table are numbered through all its files, and the shards are cut by these numbers. So a fetch can
go on in its folder as long as what was there before is unchanged: the same files in the same order, which others
may follow, and the last one of them, if it is plain text, may have grown at its end.

Of a file that is larger than 64 MiB only samples are compared: its size, its first and last MiB, and 256 blocks
of 4 KiB spread evenly over it. A change that these miss gives rows without a picture, never a wrong one: a
picture notes the identity of its row, which changes with the address.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.fetch.shard_files import WORK
from curate.readers.tables import TableConfig
from curate.readers.tables.entries import identity_files
from curate.readers.tables.files import FETCHED, TableFile, folder_of
from curate.run.files import read_json, write_certified
from curate.run.remote import base_of, is_remote
from curate.run.remote_files import RemotePath
from curate.run.schema import UserError

FILE = FETCHED
_WHOLE_BYTES = 64 * 2**20
_END_BYTES = 2**20
_BLOCKS, _BLOCK_BYTES = 256, 4096
_COLUMNS = ("file_type", "columns", "quotes", "encoding", "url_encoded", "url_column", "leave_out")
_ELSEWHERE = "to fetch this one into another folder, type dataset.images_dir=FOLDER"


def settle(
    folder: Path,
    config: TableConfig,
    tables: list[TableFile],
    rows_per_shard: int,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Write down what is fetched into ``folder``, or check that it is what was fetched there before.

    Returns:
        All settings that were used there, see ``settings``; these are the last.

    Raises:
        UserError: the folder holds another fetch, or shards of another program; says what to type.
    """
    _refuse_own_folder(folder, tables)
    before = _read(folder) if has_answers(folder) else None
    now = {
        "rows_per_shard": rows_per_shard,
        "columns": {name: getattr(config, name) for name in _COLUMNS},
        "files": [
            {"name": name, "bytes": table.path.stat().st_size, "digest": digest_of(table.path)}
            for table, name in identity_files(config, tables).items()
        ],
    }
    if before is not None:
        _compare(folder, before, now, tables)
    elif not (folder / FILE).exists() and (
        found := next(iter(sorted([*folder.glob("*.tar"), *folder.glob("*.parquet")])), None)
    ):
        raise UserError(
            f"dataset.images_dir={folder} holds {found.name} and no {FILE}: pictures that another program "
            "fetched. To curate them as they are, type fetch.enabled=false; to fetch them again, type "
            "dataset.images_dir=FOLDER with an empty folder"
        )
    revisions = with_present((before or {}).get("settings", []), settings)
    now["settings"] = revisions
    for left in folder.glob(f".{FILE}.*.part"):  # by a fetch that was killed
        left.unlink()
    if before != now:
        write_certified(folder / FILE, now)
    return revisions


def has_answers(folder: Path) -> bool:
    """Whether anything came of a fetch into a folder; before that, its table may still be read otherwise."""
    journals = (folder / WORK).glob("*.journal")
    return any(folder.glob("*_stats.json")) or any(path.stat().st_size for path in journals)


def used(folder: Path) -> list[dict[str, Any]]:
    """The settings that were used for what is in a folder.

    Raises:
        UserError: ``fetch.json`` there is damaged.
    """
    return (_read(folder) or {}).get("settings", [])


def with_present(
    known: Sequence[dict[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The settings that were used, with the present ones at the end."""
    return [*known] if known and known[-1] == settings else [*known, dict(settings)]


def _refuse_own_folder(folder: Path, tables: list[TableFile]) -> None:
    """Refuse to write parquet files in between those of the table."""
    for table in tables:
        if folder.resolve() in table.path.resolve().parents:
            raise UserError(
                f"dataset.images_dir={folder} holds the table itself, {table.path}, and what is fetched would "
                f"be taken for a part of it; type dataset.images_dir={beside(str(folder))}"
            )


def beside(path: str) -> Path:
    """A folder for the pictures of a table: ``images`` beside a file; beside a folder one named after it."""
    if is_remote(path):
        return Path(
            "data", f"{base_of(path).rpartition('/')[2].partition('.')[0] or 'table'}-images"
        )
    if Path(path).is_file():
        return Path(path).parent / "images"
    folder = folder_of(path)
    if folder.name in ("", ".."):
        folder = folder.resolve()
    return folder.with_name(f"{folder.name or 'table'}-images")


def digest_of(path: Path | RemotePath, size: int | None = None) -> str:
    """A hash of the first ``size`` bytes of a file, null for all; of many bytes it takes samples."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END) if size is None else size
        digest.update(str(size).encode())
        for start, count in _sampled(size):
            stream.seek(start)
            digest.update(stream.read(count))
    return digest.hexdigest()


def _sampled(size: int) -> list[tuple[int, int]]:
    """Start and length of what is hashed of a file of ``size`` bytes."""
    if size <= _WHOLE_BYTES:
        return [(start, min(_END_BYTES, size - start)) for start in range(0, size, _END_BYTES)]
    spread = [size * number // _BLOCKS for number in range(_BLOCKS)]
    blocks = [(start, min(_BLOCK_BYTES, size - start)) for start in spread]
    return [(0, _END_BYTES), *blocks, (size - _END_BYTES, _END_BYTES)]


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    found = read_json(path, sealed=True)
    if found is None and path.exists():
        raise UserError(
            f"{path} is damaged, so nobody can tell what was fetched there; {_ELSEWHERE}, or delete the "
            "folder to fetch all of it again"
        )
    return found


def _compare(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], tables: list[TableFile]
) -> None:
    if before["rows_per_shard"] != now["rows_per_shard"]:
        raise UserError(
            f"{folder} was fetched with fetch.rows_per_shard={before['rows_per_shard']}; to go on there, "
            f"type fetch.rows_per_shard={before['rows_per_shard']}; {_ELSEWHERE}"
        )
    for name, value in before["columns"].items():
        if now["columns"][name] != value:
            raise UserError(
                f"{folder} was fetched with dataset.{name}={_typed(value)}, and it is "
                f"{_typed(now['columns'][name])} now, so that its rows may be others; {_ELSEWHERE}"
            )
    known, found = before["files"], now["files"]
    for number, (was, table) in enumerate(zip(known, tables, strict=False)):
        if was == found[number]:
            continue
        is_last = number == len(known) - 1
        if was["name"] == found[number]["name"] and is_last and _has_grown(table, was):
            continue
        raise _another(folder, was["name"], found[number]["name"])
    if len(found) < len(known):
        raise _another(folder, known[len(found)]["name"], "")


def _has_grown(table: TableFile, was: Mapping[str, Any]) -> bool:
    """Whether a file begins with the whole lines that it consisted of before, and goes on."""
    size = was["bytes"]
    if table.file_type == "parquet" or table.compression or table.path.stat().st_size <= size:
        return False
    with table.path.open("rb") as stream:
        stream.seek(max(0, size - 1))
        return stream.read(1) == b"\n" and digest_of(table.path, size) == was["digest"]


def _another(folder: Path, was: str, found: str) -> UserError:
    what = f"{found} is in its place" if found and found != was else "it has changed"
    what = what if found else "it is gone"
    return UserError(
        f"{folder} was fetched from other rows: of its table, {was} is not as it was ({what}). A table may "
        "grow at the end of its last file, or by files whose names sort behind the others. Put the table "
        f"back as it was to go on; {_ELSEWHERE}"
    )


def _typed(value: Any) -> str:
    """A value about as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "")
