"""The folder that answers go to: each at once into the journal of its shard, and a whole shard into its files."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from curate.fetch import plan
from curate.fetch.answer import STORED, TRANSIENT, Answer, Request
from curate.fetch.begun_again import begin_again
from curate.fetch.config import FetchConfig
from curate.fetch.disk import Disk, Pace
from curate.fetch.journal import INDEX, MD5, SHA256, Journal
from curate.fetch.opt_out import OptOut
from curate.fetch.settings import ASK, SETTINGS, Review, check_files, settings_of
from curate.fetch.shard_files import (
    ShardFiles,
    answers_of,
    begun_in,
    finished_in,
    indices_of,
    remove_leftovers,
    states_in,
    states_of,
)
from curate.fetch.shards import build, prepare
from curate.readers.tables import TableConfig
from curate.readers.tables.files import TableFile
from curate.run.locks import locked

_MOST_OPEN = 32  # files of journals; those of further shards are opened for each answer
_MOST_TASKS = 3  # before the thread that writes shards is in a hurry


@contextmanager
def opened(
    folder: Path,
    config: TableConfig,
    tables: list[TableFile],
    rows_per_shard: int,
    again: bool = False,
    fetch: FetchConfig | None = None,
) -> Iterator[Store]:
    """The store in ``folder`` for the rows of a table, alone in that folder.

    Args:
        folder: it is made if it is not there.
        config, tables: what is fetched.
        rows_per_shard: rows of the table for each shard.
        again: whether failures that may pass are asked for once more, see `Store.pending`.
        fetch: the settings that answers depend on; None for the usual ones.

    Raises:
        UserError: the folder holds another fetch, or a file of ``fetch`` cannot be read.
        FileNotFoundError: ``fetch.hashes`` is missing.
        Busy: another process fetches into it.
        OSError: it cannot be written to.
    """
    fetch = fetch or FetchConfig()
    opt_out, settings = check_files(fetch), settings_of(fetch)
    with locked(folder, "dataset.images_dir"):
        known = plan.used(folder)
        revisions = plan.settle(folder, config, tables, rows_per_shard, settings)
        remove_leftovers(folder)
        store = Store(folder, rows_per_shard, again, Review(revisions, opt_out, len(known)))
        try:
            yield store
        finally:
            store.close()


class Store:
    """What has been answered of the rows of a table, in their shards.

    Rows are asked about in their order, and answered in any. A shard is written when the rows of a later one
    are asked about, or the last row has been, and all of its rows have an answer. In memory are the numbers of
    the rows of the shards that have begun. All methods are for one thread.
    """

    def __init__(
        self, folder: Path, rows_per_shard: int, again: bool = False, review: Review | None = None
    ) -> None:
        """Read the journals there, and cut off what is damaged at their end; see `opened`."""
        self._folder = folder
        self._review = review or Review([settings_of(FetchConfig())], OptOut(FetchConfig()))
        self._rows_per_shard = rows_per_shard
        self._again = again
        self._counts: Callable[[dict[str, Any]], bool] = lambda meta: (
            not (again and meta["state"] in TRANSIENT)
        )
        self._journals: dict[int, Journal] = {}
        for number in begun_in(folder):
            self._journals[number] = self._journal(number)
        self._open: OrderedDict[int, Journal] = OrderedDict()
        self._waiting: Counter[int] = Counter()  # answers that are still to come, by shard
        self._listing = -1  # the shard whose rows are being asked about
        self._finished: set[int] = set()  # its rows, if it is finished
        self._asked_before: set[int] = set()  # asking again: its rows, if it has been finished
        self._doubtful: dict[int, dict[str, Any]] = {}  # answers of its rows that may not stand
        self._left: set[int] = set()  # asking again: shards that have begun and stay so
        self._disk = Disk(folder)
        self._thread = ThreadPoolExecutor(1, "fetch-shards")
        self._pace = Pace()
        prepare()
        self._tasks: list[Future[None]] = []

    def answered(self) -> int:
        """How many rows have an answer that counts."""
        return self._answered(self._finished_shards())

    def _finished_shards(self) -> dict[int, Counter[str]]:
        """How many rows ended in each state, for each finished shard that is not being made again."""
        return {
            number: states_of(found)
            for number, found in finished_in(self._folder)
            if number not in self._journals
        }

    def _answered(self, finished: dict[int, Counter[str]]) -> int:
        states = sum(finished.values(), Counter[str]())
        begun = sum(len(journal.indices) for journal in self._journals.values())
        asked_again = self._review.loosened | (TRANSIENT.keys() if self._again else set())
        return states.total() - sum(states[state] for state in asked_again) + begun

    def described(self, rows: int | None) -> str:
        """How far the fetch is, in a line; ``rows`` of the table, if known, may be about as many."""
        finished = self._finished_shards()
        answered = self._answered(finished)
        parts = [
            f"{len(finished):,} shards are finished",
            f"{len(self._journals):,} are begun",
            f"{answered:,} rows have an answer",
        ]
        if rows is not None:
            parts.append(f"about {max(0, rows - answered):,} are to be asked for")
        return f"fetch: {', '.join(parts)} ({self._folder})"

    def states(self) -> Counter[str]:
        """How many rows of the finished shards ended in each state."""
        return states_in(self._folder)

    def pending(self, request: Request) -> bool:
        """Whether a row has no answer yet; rows come in their order.

        Asking again, only the rows of finished shards are: those whose failure may pass.

        Raises:
            OSError: a shard could not be written.
            UserError: a finished shard that has to be begun again is damaged.
        """
        self._check()
        shard = request.shard
        if shard != self._listing:
            before, self._listing = self._listing, shard
            self._end(before)
            self._finished = self._begin(shard)
            self._doubtful = self._doubtful_in(shard)
        if self._again and request.index not in self._asked_before:
            return False
        if (known := self._doubtful.get(request.index)) is not None:
            answer = self._review.of(known, request)
            if answer is not None:
                return self._replace(request, answer)
        journal = self._journals.get(shard)
        if journal is None and self._finished and request.index not in self._finished:
            self._begin_again(shard, lambda _: True)  # the table has grown
            journal = self._journals[shard]
        if request.index in (journal.indices if journal else self._finished):
            return False
        self._waiting[shard] += 1
        return True

    def _doubtful_in(self, shard: int) -> dict[int, dict[str, Any]]:
        """What is noted of those answers in a shard that were given under other settings and may not stand."""
        if shard in self._journals:
            return self._journals[shard].doubtful
        if not self._finished or not self._review.is_needed():
            return {}
        return {
            index: row
            for index, row in answers_of(self._files(shard), shard, self._rows_per_shard)
            if self._review.concerns(row)
        }

    def _replace(self, request: Request, answer: Answer) -> bool:
        """Begin a shard again, if it is finished, since an answer does not stand; whether to ask for another."""
        if request.shard not in self._journals:
            self._begin_again(request.shard, lambda _: True)
        self._waiting[request.shard] += 1
        if answer is ASK:
            return True
        self.put(request, answer)
        return False

    def put(self, request: Request, answer: Answer) -> None:
        """Keep the answer to a row that was pending; after this call it is on disk.

        Raises:
            OSError: the disk is full, or refuses; what was answered before stays.
        """
        self._check()
        journal = self._journals.get(request.shard)
        if journal is None:
            journal = self._journals[request.shard] = self._journal(request.shard)
        self._disk.look(journal.size, len(answer.body))
        journal.append(_meta(request, answer, self._review.number), answer.body)
        self._keep_few_open(request.shard, journal)
        self._disk.sync_now_and_then(each.path for each in self._open.values())
        self._waiting[request.shard] -= 1
        if request.shard != self._listing:
            self._end(request.shard)

    def finish(self) -> Counter[str]:
        """Write what is left after the last row; how many rows ended in each state.

        Raises:
            OSError: a shard could not be written.
            RuntimeError: a pending row got no answer, which is a fault of the caller.
        """
        before, self._listing = self._listing, -1
        self._end(before)
        if left := self._waiting.total():
            raise RuntimeError(f"{left} rows have no answer")
        self._pace.is_hurried = True
        for task in self._tasks:
            task.result()
        self._tasks.clear()
        return self.states()

    def close(self) -> None:
        """Close the files; a shard that is being written is finished, others that wait are not begun."""
        self._pace.is_hurried = True
        self._thread.shutdown(cancel_futures=True)
        self._disk.close()
        for journal in self._journals.values():
            with suppress(OSError):  # each answer was written; a full disk was reported then
                journal.sync()
            journal.close()

    def _files(self, shard: int) -> ShardFiles:
        return ShardFiles(self._folder, shard)

    def _journal(self, shard: int) -> Journal:
        return Journal(self._files(shard).journal, self._counts, self._review.concerns)

    def _begin(self, shard: int) -> set[int]:
        """The rows of a shard that is finished, and may stay so; none of any other."""
        files, found = self._files(shard), self._files(shard).finished()
        if self._again:
            self._asked_before = set()
            if not found and not files.is_begun_again():
                self._left.add(shard)
                return set()
            self._asked_before = indices_of(files, shard, self._rows_per_shard)
        if shard in self._journals or not found:
            return set()
        if self._again and states_of(found).keys() & TRANSIENT.keys():
            self._begin_again(shard, lambda state: state not in TRANSIENT)
            return set()
        return indices_of(files, shard, self._rows_per_shard)

    def _begin_again(self, shard: int, keeps: Callable[[str], bool]) -> None:
        begin_again(self._files(shard), shard, self._rows_per_shard, keeps)
        self._journals[shard] = self._journal(shard)

    def _end(self, shard: int) -> None:
        """Write a shard whose rows have all been asked about, if all have an answer and one is new."""
        if self._waiting[shard] or shard in self._left:
            return
        del self._waiting[shard]
        journal = self._journals.pop(shard, None)
        self._open.pop(shard, None)
        if journal is not None:
            journal.close()  # many may wait; the shard's own files are synced before it is deleted
            self._tasks.append(self._thread.submit(self._write, shard, journal))
            self._pace.is_hurried = len(self._tasks) > _MOST_TASKS

    def _write(self, shard: int, journal: Journal) -> None:
        build(self._files(shard), shard, self._rows_per_shard, self._pace, journal.indices)

    def _check(self) -> None:
        """Raise what went wrong in the thread."""
        while self._tasks and self._tasks[0].done():
            self._tasks.pop(0).result()

    def _keep_few_open(self, shard: int, journal: Journal) -> None:
        self._open[shard] = journal
        self._open.move_to_end(shard)
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()


def _meta(request: Request, answer: Answer, settings: int) -> dict[str, Any]:
    """What the journal says beside a picture's bytes."""
    said = {
        INDEX: request.index,
        "url": request.url,
        "caption": request.caption,
        "row": request.row,
        "state": answer.state,
        "error": answer.error,
        "extension": answer.extension,
        "width": answer.width,
        "height": answer.height,
        "http_status": answer.http_status,
        SETTINGS: settings,
    }
    if answer.state == STORED:  # here, because it takes more time in a thread beside this one
        said[SHA256] = hashlib.sha256(answer.body).hexdigest()
        said[MD5] = hashlib.md5(answer.body, usedforsecurity=False).hexdigest()
    return said
