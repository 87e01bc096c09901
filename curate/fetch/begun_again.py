"""A finished shard is begun again: a journal of its answers, for others to be asked for once more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from curate.fetch.answer import STORED
from curate.fetch.journal import AT, INDEX, MD5, SHA256, encoded
from curate.fetch.settings import SETTINGS
from curate.fetch.shard_files import ShardFiles, damaged, error_in, index_digits, rows_of
from curate.readers.tars import iter_samples
from curate.run.files import atomic_write, sync

_TEXTS = ("json", "txt")
_NOTES = ("url", "caption", "row", "state", "width", "height", "http_status", SETTINGS)


def begin_again(
    files: ShardFiles, number: int, rows_per_shard: int, keeps: Callable[[str], bool]
) -> None:
    """Make the journal of a finished shard, with those of its answers whose state ``keeps`` says so.

    The shard stays as it is until all its rows have an answer again. Its pictures are not copied, where the
    file system has hard links.

    Raises:
        UserError: a picture that the table lists is not in the tar.
        OSError: the disk is full, or refuses.
    """
    files.work.mkdir(exist_ok=True)
    files.earlier_tar.unlink(missing_ok=True)
    try:
        os.link(files.tar, files.earlier_tar)
    except OSError:
        shutil.copyfile(files.tar, files.earlier_tar)
    sync(files.earlier_tar)
    pictures = dict(_pictures(files.tar))
    first = number * 10 ** index_digits(rows_per_shard)
    with atomic_write(files.journal) as stream:
        for row in rows_of(files):
            state = row["state"]
            if not keeps(state):
                continue
            meta = {INDEX: int(row["key"]) - first, **{name: row.get(name) for name in _NOTES}}
            meta |= {"error": error_in(row), "extension": ""}
            if state == STORED:
                if row["key"] not in pictures:
                    raise damaged(files)
                meta["extension"], meta[AT] = pictures[row["key"]]
                meta[SHA256], meta[MD5] = row["sha256"], row["md5"]
            stream.write(encoded(meta, b""))


def _pictures(tar: Path) -> Iterator[tuple[str, tuple[str, tuple[int, int]]]]:
    """Key, extension and place of each picture."""
    for key, members in iter_samples(tar):
        extension = next(name for name in members if name not in _TEXTS)
        yield key, (extension, members[extension])
