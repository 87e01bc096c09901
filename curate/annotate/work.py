"""The worker that measures tasks: what it needs, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from curate.annotate.cache import AnnotationCache
from curate.annotate.done import is_done, with_head
from curate.annotate.known import Known
from curate.annotate.listing import Task, read_candidates
from curate.annotate.measurer import Measurer
from curate.annotate.parts import read_part
from curate.annotate.rejects import COLUMNS, Errors
from curate.annotate.spec import AnnotationSpec
from curate.annotate.store import SharedStore, StorePlace, Used
from curate.clip.scorer import ClipScorer
from curate.run import parquet
from curate.run.engine.tasks import Progress, Worker


@dataclass(frozen=True)
class Measuring:
    """All that a worker needs beside its tasks; each process has a copy of it.

    Attributes:
        tasks: the folder of the lists.
        parts: the folder of the parts.
        spec: what to measure.
        load: the bytes at a candidate's location, see ``Source.load``.
        load_scorer: the CLIP; called often, so it should remember.
        threads: that read and decode.
        known: what the run has measured before.
        store: where the measurements of other runs are; None for nowhere.
        stored: what these have measured.
    """

    tasks: Path
    parts: Path
    spec: AnnotationSpec
    load: Callable[[str], bytes]
    load_scorer: Callable[[], ClipScorer]
    threads: int
    known: Known = field(default_factory=Known)
    store: StorePlace | None = None
    stored: Known = field(default_factory=Known)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a worker says of a task.

    Attributes:
        number: of the task.
        errors: of its part.
        used: of the store.
    """

    number: int
    errors: Errors
    used: Used


@contextmanager
def measuring(given: Measuring) -> Iterator[Worker]:
    """A worker that writes the part of a task, unless that is there; the model is loaded when needed."""
    store = SharedStore(given.store, given.spec, given.stored) if given.store else None
    cache = AnnotationCache(given.spec.measures, given.known)
    with ThreadPoolExecutor(given.threads) as pool:
        measurer = Measurer(cache, given.spec, given.load, given.load_scorer, pool, store)

        def work(task: Task, progress: Progress) -> Measured:
            path = given.parts / task.part
            if is_done(path, given.spec):  # by an attempt that died just after
                progress(task.images)
                return Measured(task.number, Errors.of(read_part(path, COLUMNS)), Used())
            candidates = read_candidates(given.tasks, task)
            part = with_head(measurer.measure(candidates, progress), given.spec)
            parquet.write_table(path, part)
            measurer.keep(path, part)
            used = store.take_used() if store else Used()
            return Measured(task.number, Errors.of(part), used)

        yield work
