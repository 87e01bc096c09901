"""The stages of a curation that several processes share: measuring, ``stage=annotate shard=i/n``, and ``stage=finish``.

They work in one run folder. Each measuring process holds a shared lock on it, and one on its own share; the first of
them lists the tasks, for all. Whoever decides and packs holds the folder alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from curate.annotate.listing import LIST, PLAN, Plan, Task, read_plan
from curate.annotate.parts import FORMAT
from curate.annotate.rejects import TooMany
from curate.annotate.spec import AnnotationSpec
from curate.annotate.stage import (
    TASKS,
    Annotations,
    Measure,
    check_rejects,
    list_tasks,
    measure_tasks,
    settle,
    to_retry,
    unfinished,
)
from curate.annotate.store import StorePlace, folder_of
from curate.clip.load import LazyClip
from curate.clip.models import arithmetic, device, fingerprint
from curate.pipeline.config import CurateConfig
from curate.readers.source import Source
from curate.run import checksums, provenance, shared_cache
from curate.run.engine.opened import open_engine
from curate.run.engine.tasks import Engine
from curate.run.locks import locked
from curate.run.removals import Removals, read_removals
from curate.run.schema import Busy, UserError

_SHARES = "shares"  # in the tasks' folder: a folder with a lock for each share that was begun
_FREE = ("index", "spool", "layout", "download")  # keys of ``dataset`` on which no task depends
_LOOK_EVERY_S = 1.0


def cache_dir(config: CurateConfig) -> Path:
    """The folder of what all runs share."""
    return Path(config.run.root, shared_cache.CACHE)


def clear(folder: Path) -> None:
    """Delete what a run that did not end left among its tasks, but for the list and the shares that were begun."""
    stays = {PLAN, LIST, _SHARES}
    for path in sorted(folder.glob("*")):
        if path.name in stays:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def measure_of(
    config: CurateConfig, curate_dir: Path, removals: Removals, engine: Engine
) -> Measure:
    """How a curation measures."""
    clip = config.scoring_clip
    if config.engine.name != "ray" and clip.device not in ("auto", "cpu"):
        device(clip)  # refuses one that is not there before anything is listed
    spec = AnnotationSpec.of(clip, config.filters, config.annotate)
    store = folder_of(cache_dir(config), spec, arithmetic(clip))
    return Measure(
        folder=curate_dir / "annotations",
        config=config.annotate,
        spec=spec,
        load_scorer=LazyClip(clip, fingerprint(clip, spec.draft), spec.draft),
        store=StorePlace(store, removals),
        engine=engine,
        limits=config.engine.limits(curate_dir / TASKS),
    )


def settings_of(config: CurateConfig, spec: AnnotationSpec) -> str:
    """A digest of all settings that the tasks and their parts depend on."""
    dataset = provenance.redacted(asdict(config.dataset))
    known = {
        "format": FORMAT,
        "dataset": {name: value for name, value in dataset.items() if name not in _FREE},
        "images_per_part": config.annotate.images_per_part,
        "clip": [spec.clip_model, spec.draft, arithmetic(config.scoring_clip)],
        "measures": spec.measures,
        "embeddings": spec.stored.kind,
        "prefilter": spec.prefilter.digest,
    }
    text = json.dumps(known, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def annotate_share(config: CurateConfig, source: Source, curate_dir: Path) -> None:
    """Measure this process's share of the tasks, beside others that measure theirs.

    Raises:
        UserError: the tasks were listed with other settings; or as ``annotate.stage.annotate``.
        Busy: another process measures the same share, or works in the folder alone.
    """
    number, count = map(int, (config.shard or "0/1").split("/"))
    curate_dir.mkdir(parents=True, exist_ok=True)
    tasks_dir = curate_dir / TASKS
    with (
        locked(curate_dir, shared=True),
        locked(tasks_dir / _SHARES / f"{number}-of-{count}", "shard"),
        open_engine(config.engine, tasks_dir / f"engine-{number}-of-{count}") as engine,
    ):
        checksums.forget_below(curate_dir, "annotations")  # shards of a finished curation stay
        measure = measure_of(config, curate_dir, read_removals(curate_dir), engine)
        plan = _shared_plan(source, measure, settings_of(config, measure.spec))
        measure = measure.of(plan)
        mine = plan.tasks[number::count]
        measure_tasks(
            mine,
            source.load,
            measure,
            f"known-{number}-of-{count}",
            is_whole=count == 1,
            others=frozenset(t.part for t in plan.tasks if t.number % count != number),
        )
    images = sum(task.images for task in mine)
    what = "all" if count == 1 else f"share {number}/{count}"
    _say(
        f"measured: {what}, {images} images in {len(mine)} of {len(plan.tasks)} tasks; once all shares are measured, type "
        "the same command with stage=finish and without shard"
    )


def check_done(source: Source, measure: Measure, settings: str) -> Annotations:
    """List the tasks again, as the data may have changed, and check that each is measured.

    The list of shares that measure with other settings stays as it is.

    An image that cannot be read counts as unreadable, as in a plain run: measuring again tries it once more.

    Raises:
        UserError: the tasks were listed with other settings; or some are not measured, and it says which shares to
            measure again; or more images in a row are unreadable than ``annotate.max_reject_rate`` allows, over all
            tasks as in a plain run, whatever the shares allowed.
    """
    if listed := read_plan(measure.tasks):
        _refuse_others(listed, measure, settings)
    plan = list_tasks(source, measure, settings)
    measure = measure.of(plan)
    done = unfinished(plan.tasks, measure, retry=False)
    left = [task for task, is_done in zip(plan.tasks, done, strict=True) if not is_done]
    if left:
        images = sum(task.images for task in left)
        raise UserError(
            f"not measured yet, or not with these settings: {len(left)} of {len(plan.tasks)} tasks ({images} images); "
            f"type the same settings with {_to_type(left, measure.tasks)}, then this command again"
        )
    try:
        check_rejects(plan, measure)
    except TooMany:
        (measure.tasks / PLAN).unlink()  # once the input is mended, the shares list it again
        raise
    if again := to_retry(plan.tasks, measure):
        _say(
            f"note: {again} of {len(plan.tasks)} tasks have images that cannot be read, which count as unreadable; "
            f"stage=annotate tries them again"
        )
    return settle(plan, measure)


def _to_type(left: list[Task], tasks_dir: Path) -> str:
    """The shares that the tasks which are left belong to, where all were begun as shares of one number."""
    names = [path.name for path in (tasks_dir / _SHARES).glob("*-of-*")]
    counts = {int(found[1]) for name in names if (found := re.fullmatch(r"\d+-of-(\d+)", name))}
    if counts in (set(), {1}):
        return "stage=annotate"
    if len(counts) > 1:
        return "stage=annotate and no shard"
    (count,) = counts
    shares = sorted({task.number % count for task in left})
    typed = " and ".join(f"shard={share}/{count}" for share in shares[:8])
    more = f" and {len(shares) - 8} more" if len(shares) > 8 else ""
    return f"stage=annotate and, each in a process, {typed}{more}"


def _shared_plan(source: Source, measure: Measure, settings: str) -> Plan:
    """The plan that all shares go by; whoever is first makes it, and the others wait."""
    with _waiting(measure.tasks):
        plan = read_plan(measure.tasks)
        if plan is None:
            return list_tasks(source, measure, settings)
    _refuse_others(plan, measure, settings)
    return plan


def _refuse_others(plan: Plan, measure: Measure, settings: str) -> None:
    """Refuse a plan that was made with other settings; other processes may go by it.

    Raises:
        UserError: says so.
    """
    if plan.settings != settings:
        raise UserError(
            f"the tasks in {measure.tasks} were listed with other settings of dataset, clip, filters or annotate; type those "
            f"again, or delete {measure.tasks} once no other process measures"
        )


@contextmanager
def _waiting(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as soon as nobody else does."""
    said = False
    while True:
        lock = locked(folder, "run.name")
        try:
            lock.__enter__()
        except Busy:
            if not said:
                _say("note: another process lists the data set; this one waits for it")
            said = True
            time.sleep(_LOOK_EVERY_S)
            continue
        try:
            yield
        finally:
            lock.__exit__(None, None, None)
        return


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
