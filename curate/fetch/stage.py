"""Fetch a table: its requests, as far as they have no answer yet, through the client into the store."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from curate.fetch import picture, scheduler, shard_files, store
from curate.fetch.answer import Answer, Request
from curate.fetch.client import Client
from curate.fetch.config import FetchConfig
from curate.fetch.monitor import Monitor
from curate.fetch.requests import requests, rows_about
from curate.fetch.store import Store
from curate.readers.tables import TableConfig
from curate.readers.tables.entries import find
from curate.readers.tables.files import TableFile
from curate.run.schema import UserError

NewClient = Callable[[FetchConfig], Client]


def run(
    dataset: TableConfig,
    fetch: FetchConfig,
    again: bool = False,
    new_client: NewClient = Client,
) -> dict[str, int]:
    """Fetch what has no answer yet into ``dataset.images_dir``; how many rows have ended in each state.

    Stopped at any moment, by a signal as well, it goes on when it is called again.

    Args:
        dataset: the table.
        fetch: how.
        again: whether failures that may pass are asked for once more.
        new_client: what makes one attempt at an address.

    Raises:
        UserError: the folder is not named, holds another fetch, or its disk is full; a table cannot be read;
            an opt-out list cannot be read.
        FileNotFoundError: the table, or ``fetch.hashes``, is missing.
        Busy: another process fetches into the folder.
    """
    if dataset.images_dir is None:
        raise UserError(
            "dataset.images_dir is not set, where the pictures go that are fetched; type "
            "dataset.images_dir=FOLDER"
        )
    tables = find(dataset, [])
    try:
        with store.opened(
            Path(dataset.images_dir), dataset, tables, fetch.rows_per_shard, again, fetch
        ) as kept:
            return dict(_run(dataset, fetch, tables, kept, new_client))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.filename or dataset.images_dir}: {error.strerror}. Every answer so far is kept; make "
            "room there, and the same command again goes on"
        ) from error


def states_in(dataset: TableConfig) -> Counter[str]:
    """How many rows of what was fetched into ``dataset.images_dir`` ended in each state; begun shards are not counted."""
    return shard_files.states_in(Path(dataset.images_dir or ""))


def is_asking_again(dataset: TableConfig) -> bool:
    """Whether `run` was stopped while it asked again."""
    return shard_files.is_asking_again(Path(dataset.images_dir or ""))


def _run(
    dataset: TableConfig,
    fetch: FetchConfig,
    tables: list[TableFile],
    kept: Store,
    new_client: NewClient,
) -> dict[str, int]:
    notes: list[str] = []
    total, answered = rows_about(dataset, tables), kept.answered()
    print(kept.described(total), flush=True)
    asked_for = requests(dataset, fetch, tables, notes)
    pending = (each if kept.pending(each) else None for each in asked_for)
    with Monitor(fetch, None if total is None else max(total, answered), answered) as monitor:
        asyncio.run(_fetch(pending, fetch, kept, monitor, new_client))
        states = kept.finish()
    for note in notes:
        if note.startswith("rows not fetched"):
            sys.stdout.write(f"note: {note}\n")
    return states


async def _fetch(
    pending: Iterable[Request | None],
    fetch: FetchConfig,
    kept: Store,
    monitor: Monitor,
    new_client: NewClient,
) -> None:
    async with new_client(fetch) as client:

        def done(request: Request, answer: Answer) -> None:
            answer = picture.checked(answer, request, client.opt_out)
            kept.put(request, answer)
            monitor.add(request, answer)

        await scheduler.fetch(pending, client.ask, fetch, done, crawl_delay=client.crawl_delay)
