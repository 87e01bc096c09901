"""Measure every pair once: list the candidates as tasks, and have the parts written that are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from curate.annotate import work
from curate.annotate.cache import say_damaged
from curate.annotate.config import AnnotateConfig
from curate.annotate.done import is_done, is_measured
from curate.annotate.known import Known, index_those_there
from curate.annotate.listing import Plan, Task, make_plan
from curate.annotate.parts import FORMAT, LIST, head_said, part_head, read_part
from curate.annotate.rejects import COLUMNS, Errors, Rejects, TooMany
from curate.annotate.spec import AnnotationSpec
from curate.annotate.store import Inode, StorePlace, Used, inode_of, opened
from curate.clip.scorer import ClipScorer
from curate.measures.not_fetched import state_at
from curate.readers.source import Source
from curate.run import parquet
from curate.run.database import Limits, connect, parquet_files
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import Engine, Result, WorkerSpec, values
from curate.run.files import remove_parts, write_certified
from curate.run.progress import Bar, count_done
from curate.run.schema import UserError

TASKS = "tasks"
"""The folder of what a curation needs until it is finished, beside the one of the annotations."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The parts in input order, how many pairs were listed, and what was measured."""

    parts: list[Path]
    pairs: int
    spec: AnnotationSpec


@dataclass(frozen=True)
class Measure:
    """How candidates are measured.

    Attributes:
        folder: for the parts; those of earlier runs are used.
        config: how the pass is cut into parts.
        spec: what to measure.
        load_scorer: the CLIP; called when something needs it, and then often, so it should remember. Engines of
            several processes pickle it.
        store: the measurements of other runs. What they have is used, and what is measured is added to them. The
            parts are the same as without.
        engine: what carries out the tasks.
        limits: of tables in memory.
    """

    folder: Path
    config: AnnotateConfig
    spec: AnnotationSpec
    load_scorer: Callable[[], ClipScorer]
    store: StorePlace | None = None
    engine: Engine = field(default_factory=InProcess)
    limits: Limits | None = None

    @property
    def tasks(self) -> Path:
        """The folder of the tasks."""
        return self.folder.with_name(TASKS)

    @property
    def tables(self) -> Limits:
        """The limits, with the tasks' folder where none are given."""
        return self.limits or Limits(self.tasks / "scratch")

    def of(self, plan: Plan) -> Measure:
        """The same for the tasks of a plan, whose number of images decides which embeddings are left out."""
        return replace(self, spec=self.spec.for_images(plan.images))


def annotate(source: Source, measure: Measure, settings: str = "") -> Annotations:
    """List and measure all candidates of ``source``; ``settings`` is of the plan.

    The name of a part says what it was measured from; images that moved to another part are found by
    their content.

    Raises:
        UserError: two images share a key, a larger share of images in a row than
            ``config.max_reject_rate`` is unreadable, or a part of an earlier release, which has no
            checksum, is damaged behind an intact footer.
        TasksFailed: some failed in each attempt, and the others are done.
    """
    remove_parts(measure.folder)
    plan = list_tasks(source, measure, settings)
    measure = measure.of(plan)
    measure_tasks(plan.tasks, source.load, measure)
    return settle(plan, measure)


def settle(plan: Plan, measure: Measure) -> Annotations:
    """Name the parts of a plan whose tasks are all done, and delete those that they replace."""
    names = [task.part for task in plan.tasks]
    write_certified(measure.folder / LIST, {"parts": names})
    _remove_superseded(plan, measure)
    return Annotations([measure.folder / name for name in names], plan.pairs, measure.spec)


def list_tasks(source: Source, measure: Measure, settings: str = "") -> Plan:
    """List the candidates, see ``listing.make_plan``."""
    return make_plan(
        source.candidates(),
        measure.tasks,
        measure.spec.clip_model,
        measure.tables,
        measure.config.images_per_part,
        settings,
        source.total,
    )


def measure_tasks(
    tasks: Sequence[Task],
    load: Callable[[str], bytes],
    measure: Measure,
    known: str = "known",
    *,
    is_whole: bool = True,
    others: Set[str] = frozenset(),
) -> None:
    """Measure some tasks of a plan, those that are not done, and check the share of unreadable images.

    Args:
        tasks: those to measure, in order.
        load: gives an image's bytes.
        measure: how.
        known: the name of the folder, among the tasks, of what was measured before.
        is_whole: whether these are all tasks of the plan. Of a share only those windows of images are checked that
            lie in it whole; ``check_rejects`` checks the others.
        others: the names of the parts of all other tasks of the plan, which hold no image of these. They are not even
            opened: a thousand shares that each read what the others measured would read it a thousand times. An image
            of equal bytes there is measured again, to the same numbers.

    Raises:
        UserError, TasksFailed: see ``annotate``.
    """
    measure.folder.mkdir(parents=True, exist_ok=True)
    done = unfinished(tasks, measure)
    left = [task for task, is_there in zip(tasks, done, strict=True) if not is_there]
    counted = _InOrder(tasks, measure)
    with Bar(total=sum(task.images for task in tasks), desc="annotate", unit="img") as bar:
        count_done(bar, sum(task.images for task in tasks) - sum(task.images for task in left))
        try:
            folder = measure.tasks / known
            with _measured(left, load, measure, folder, bar.update, others) as results:
                counted.take({task.number for task in left}, results, is_whole=is_whole)
        except TooMany:
            counted.forget_later(left)
            raise


def check_rejects(plan: Plan, measure: Measure) -> None:
    """Check the share of unreadable images of a plan whose tasks are all done, as one pass over all would have.

    Raises:
        TooMany: more in a row are unreadable than ``config.max_reject_rate`` allows. Whatever lies behind and is
            unreadable is deleted: one pass would not have come that far, and the same cause may have spoilt it.
    """
    counted = _InOrder(plan.tasks, measure)
    try:
        counted.take(set(), iter(()))
    except TooMany:
        counted.forget_later(plan.tasks)
        raise


def unfinished(tasks: Sequence[Task], measure: Measure, *, retry: bool = True) -> list[bool]:
    """For each task whether its part is done; damaged parts are said.

    A part that is new is not read again: the check of a part that is there reads it once, in threads.

    Args:
        tasks: which.
        measure: how they are measured.
        retry: whether an image that cannot be read leaves its task undone. Each command that measures tries such an
            image once; one that only asks whether all was measured would otherwise never get an answer.
    """

    def is_there(task: Task) -> bool:
        path = measure.folder / task.part
        if path.is_file() and not part_head(path):
            Bar.write(f"annotations/{path.name} is damaged; it is measured again")
        return (is_done if retry else is_measured)(path, measure.spec)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(is_there, tasks))


def to_retry(tasks: Sequence[Task], measure: Measure) -> int:
    """How many of these tasks, which are measured, have an image that the next ``measure_tasks`` tries again."""
    with ThreadPoolExecutor() as pool:
        heads = pool.map(part_head, [measure.folder / task.part for task in tasks])
        return sum(bool(head.get("to_retry")) for head in heads)


@contextmanager
def _measured(
    left: Sequence[Task],
    load: Callable[[str], bytes],
    measure: Measure,
    known: Path,
    progress: Callable[[int], object],
    others: Set[str],
) -> Iterator[Iterator[Result]]:
    """The results of the tasks that are left; nothing is opened for none."""
    if not left:
        yield iter(())
        return
    with ExitStack() as stack:
        stored, used = Known(), Used()
        if measure.store:
            but_for = _inodes(measure.folder, others)
            opening = opened(measure.store, measure.spec, known / "store", measure.tables, but_for)
            stored, used = stack.enter_context(opening)
        given = work.Measuring(
            tasks=measure.tasks,
            parts=measure.folder,
            spec=measure.spec,
            load=load,
            load_scorer=measure.load_scorer,
            threads=measure.config.workers,
            known=_known(measure, known / "own", others),
            store=measure.store,
            stored=stored,
        )
        factory = f"{work.__name__}:{work.measuring.__name__}"
        spec = WorkerSpec(factory, {"given": given}, uses_gpu=True)
        results = measure.engine.map(spec, left, progress)

        def each() -> Iterator[Result]:
            for result in results:
                if result.value is not None:
                    used.add(result.value.used)
                yield result

        try:
            yield each()
        finally:
            getattr(results, "close", lambda: None)()  # workers end, before what they use does


def _known(measure: Measure, folder: Path, others: Set[str]) -> Known:
    """What the run has measured in other parts than ``others``, indexed in ``folder``."""
    damaged: set[Path] = set()

    def leave_out(path: Path) -> None:
        damaged.add(path)
        say_damaged(path)

    def listed() -> tuple[list[Path], list[Path]]:
        return [], [path for path in _earlier(measure, others) if path not in damaged]

    return index_those_there(listed, folder, measure.tables, leave_out)


def _earlier(measure: Measure, others: Set[str]) -> list[Path]:
    """The parts in the folder of the same format and CLIP, but for ``others``."""
    paths = sorted(measure.folder.glob("part-*.parquet"))
    paths = [path for path in paths if path.name not in others]
    wanted = FORMAT, measure.spec.clip_model
    with ThreadPoolExecutor() as pool:
        heads = pool.map(head_said, paths)
        return [
            path
            for path, head in zip(paths, heads, strict=True)
            if (head.get("format"), head.get("clip_model")) == wanted
        ]


def _inodes(folder: Path, names: Set[str]) -> set[Inode]:
    """Of those files in a folder that have one of these names."""
    found: set[Inode] = set()
    for path in folder.glob("part-*.parquet") if names else ():
        with suppress(FileNotFoundError):  # deleted meanwhile
            if path.name in names:
                found.add(inode_of(path))
    return found


class _InOrder:
    """Counts unreadable images in input order, as far as the results are in."""

    def __init__(self, tasks: Sequence[Task], measure: Measure) -> None:
        self._tasks, self._measure = tasks, measure
        self._rejects = Rejects(measure.config.max_reject_rate)
        self._next = 0  # place of the first task that is not counted
        self._waiting: dict[int, Errors | None] = {}  # by number; None of a task that failed

    def take(self, left: set[int], results: Iterator[Result], *, is_whole: bool = True) -> None:
        """Take the results of the tasks whose numbers are ``left``; the parts of the others are read."""
        taken: list[Result] = []
        self._count(left)
        for result in results:
            if result.refusal:
                raise UserError(result.error)
            taken.append(result if result.error else Result(None))
            measured: work.Measured | None = result.value
            self._waiting[result.task.number] = measured and measured.errors
            left.discard(result.task.number)
            self._count(left)
        values(iter(taken), "annotate")
        if is_whole:
            self._rejects.finish()

    def _count(self, left: set[int]) -> None:
        while (
            self._next < len(self._tasks) and (task := self._tasks[self._next]).number not in left
        ):
            path = self._measure.folder / task.part
            if task.number in self._waiting:
                errors = self._waiting.pop(task.number)
            else:
                errors = self._read(path)
            if errors is not None:
                self._rejects.skip_to(task.image)
                self._rejects.add(path, errors)
            self._next += 1

    def _read(self, path: Path) -> Errors:
        try:
            return Errors.of(read_part(path, COLUMNS))
        except FileNotFoundError as error:
            raise UserError(
                f"another process has deleted {path} meanwhile; type the same command again, and it is measured again"
            ) from error

    def forget_later(self, left: Sequence[Task]) -> None:
        """Delete what was measured beyond the window that stopped the pass, where it is unreadable.

        One worker alone would not have come that far; and once the cause is mended, these images are measured again.
        Parts stay whose only unreadable images were not fetched: trying again would change nothing.

        Args:
            left: the tasks that were not done when the pass began.
        """
        counted = {task.number for task in self._tasks[: self._next]}
        for task in left:
            path = self._measure.folder / task.part
            if task.number in counted or not path.is_file():
                continue
            with suppress(FileNotFoundError):  # another process was first
                found = Errors.of(read_part(path, COLUMNS)).found
                if not all(state_at(location) for _, _, location in found):
                    path.unlink()


def _remove_superseded(plan: Plan, measure: Measure) -> None:
    """Delete earlier parts all of whose images are in this pass.

    Parts of another CLIP stay, so do those with images outside a trial's selection, and damaged ones,
    of which nobody can tell what they held.
    """
    folder, current = measure.folder, {task.part for task in plan.tasks}
    others = []
    for path in sorted(folder.glob("part-*.parquet")):
        if path.name in current:
            continue
        head = part_head(path)
        is_current = head.get("format") == FORMAT
        if head and parquet.checksum_in(path) is None:
            read_part(path, ["key"])  # raises where it is damaged behind its footer
        if head and (not is_current or head.get("clip_model") == measure.spec.clip_model):
            others.append(path)
    if not others:
        return
    lists = [measure.tasks / task.file for task in plan.tasks]
    with connect(measure.tables) as connection:
        wider = "SELECT CAST(NULL AS VARCHAR) AS key WHERE false"
        keys = f"SELECT key FROM {parquet_files(lists)}" if lists else wider
        found = connection.sql(
            "SELECT file_index::BIGINT FROM (SELECT key, file_index FROM "
            f"{parquet_files(others)}) AS held ANTI JOIN ({keys}) AS here USING (key) GROUP BY file_index"
        ).fetchall()
    outside = {number for (number,) in found}
    for number, path in enumerate(others):
        if number not in outside:
            path.unlink()
