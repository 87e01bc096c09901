"""Fetch the archives in which a data set is published, and unpack them into its folder."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from curate.fetch import resumable, unpack
from curate.fetch.config import FetchConfig
from curate.fetch.transport import user_agent
from curate.readers.archives import Archive, gigabytes
from curate.readers.config import DatasetConfig
from curate.run.locks import locked
from curate.run.progress import Bar
from curate.run.schema import UserError

FOLDER = ".download"  # in the data set's folder: what is not finished

_SPARE_BYTES = 1 << 30  # that stay free on the disk
_BLOCK_BYTES = 1 << 22


def fetch_missing(config: DatasetConfig, asking: FetchConfig | None = None) -> None:
    """Fetch what ``dataset.download=true`` asks for and is not in ``dataset.root`` yet.

    The User-Agent names this program and, where ``asking`` has one, the contact of whoever fetches.

    Raises:
        UserError: the data set has no archives that can be fetched, its folder is a file, the disk is too
            full, or the server sends something else; says what to type.
        Busy: another process fetches into the folder.
    """
    root = Path(str(getattr(config, "root", "")))
    if not config.archives:
        raise UserError(f"dataset={config.name} cannot be fetched; leave dataset.download=true out")
    if root.is_file():
        raise UserError(
            f"dataset.root={root} is a file, and dataset.download=true fetches into a folder; type "
            f"dataset.root={root.parent}"
        )
    fetch(config.archives, root, asking)


def fetch(
    archives: Sequence[Archive],
    root: Path,
    asking: FetchConfig | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Fetch and unpack those archives of which something is missing in ``root``, one after another.

    An archive is unpacked aside and moved, so that a folder of its files is complete or not there; then its
    zip file is deleted. Killed at any moment, the next call goes on where this one was.

    Raises:
        UserError, Busy: as ``fetch_missing``.
    """
    missing = [archive for archive in archives if not archive.is_there(root)]
    if not missing:
        return
    root.mkdir(parents=True, exist_ok=True)
    aside, agent = root / FOLDER, user_agent(asking or FetchConfig())
    with locked(aside, "dataset.root"):
        check_disk(missing, aside)
        for archive in missing:
            if archive.is_there(root):  # another process was faster
                continue
            path = aside / archive.name
            if not path.exists():
                asyncio.run(resumable.fetch(archive, path, agent, sleep))
            _check_hash(archive, path)
            files = unpack.unpack(archive, path, root, aside / f"{archive.name}.unpacked")
            path.unlink()
            Bar.write(f"{archive.name}: {files:,} files in {root}")
            if not archive.is_there(root):
                raise UserError(
                    f"{archive.url} holds fewer files than published ({files:,}); {root} is not complete"
                )
    shutil.rmtree(aside)


def check_disk(archives: Sequence[Archive], aside: Path) -> None:
    """Refuse to start where the disk of ``aside`` cannot hold what the archives unpack to.

    Pictures do not shrink in a zip file: each archive takes its size twice until it is deleted.

    Raises:
        UserError: says how much is needed, and how much is free.
    """
    there = sum(path.stat().st_size for path in aside.iterdir() if path.is_file())
    needed = sum(archive.bytes for archive in archives) + max(archive.bytes for archive in archives)
    free = shutil.disk_usage(aside).free
    if free + there < needed + _SPARE_BYTES:
        raise UserError(
            f"dataset.download=true fetches {gigabytes(tuple(archives))}, for which "
            f"{(needed + _SPARE_BYTES - there) / 1e9:.1f} GB have to be free for a while, and "
            f"{free / 1e9:.1f} GB are in {aside.parent}; make room, or type dataset.root=FOLDER of another disk"
        )


def _check_hash(archive: Archive, path: Path) -> None:
    """Compare the whole file with its hash, where one is known.

    Raises:
        UserError: they differ; the file is deleted.
    """
    if not archive.sha256:
        return
    digest = hashlib.sha256()
    with (
        path.open("rb") as stream,
        Bar(total=archive.bytes // 10**6, desc=f"check {archive.name}", unit="MB") as bar,
    ):
        done = 0
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            bar.update(done // 10**6 - bar.n)
    if digest.hexdigest() != archive.sha256:
        path.unlink()
        raise UserError(
            f"{archive.url} is not the file that was published (its SHA-256 is {digest.hexdigest()}); it was "
            "deleted. Type the same command again, or fetch it yourself"
        )
