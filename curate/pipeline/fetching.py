"""Before a data set is read: fetch its pictures where that is asked for, and say how where there are none."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from curate.fetch.answer import STATES, STORED, TRANSIENT
from curate.fetch.config import FetchConfig
from curate.pipeline.config import CurateConfig
from curate.readers.config import DatasetConfig
from curate.readers.tables import TableConfig
from curate.readers.tables.files import FETCHED
from curate.run.locks import locked
from curate.run.next_command import COMMANDS, named
from curate.run.overrides import key_of, section_of_command, typed
from curate.run.remote import is_remote, refuse_local_only
from curate.run.schema import Busy, UserError
from curate.run.units import size

if TYPE_CHECKING:
    from curate.fetch.requests import Size

_COMMONEST = 5
_EXAMPLE = "you@example.org"


def is_asked_for(config: CurateConfig) -> bool:
    """Whether the settings ask for pictures to be fetched."""
    return config.fetch.enabled or bool(getattr(config.dataset, "download", False))


def settle(config: CurateConfig) -> None:
    """Fetch what ``dataset.download`` or ``fetch.enabled`` asks for; offer it where a table has no pictures.

    A trial, ``dry_run``, fetches nothing: it looks at the pictures that are there.

    Raises:
        UserError: there is nothing to fetch, nothing could be fetched, or pictures are missing and nobody asked
            for them; says what to type.
    """
    dataset = config.dataset
    if getattr(dataset, "download", False):
        from curate.fetch import official

        official.fetch_missing(dataset, config.fetch)
    if not isinstance(dataset, TableConfig):
        _refuse_idle(config, "fetch.* is about the pictures of tables of addresses")
        if config.fetch.enabled:
            raise UserError(
                f"fetch.enabled=true fetches the pictures of tables of addresses, and dataset={dataset.name} is "
                "none; type fetch.enabled=false"
            )
        return
    if config.fetch.enabled and not config.dry_run:
        _fetch(config, dataset, config.fetch)
    elif not _has_files(dataset.images_dir):
        _offer(config, dataset)
        _refuse_idle(config, "nothing is fetched")
    elif not config.fetch.enabled:
        _refuse_idle(config, f"pictures are in {dataset.images_dir}, and nothing is fetched")
    else:
        print("note: dry_run fetches nothing, and tries pictures that are there", flush=True)


def _refuse_idle(config: CurateConfig, why: str) -> None:
    """Refuse settings of the fetch, typed or of an experiment's file, where nobody fetches: they would do nothing.

    ``fetch.enabled=false`` beside them says that this is meant.
    """
    given = {key_of(text).removeprefix("curate."): text for text in _overrides()}
    idle = [text for key, text in given.items() if key.startswith("fetch.")]
    if config.fetch.enabled or not idle or "fetch.enabled" in given:
        return
    prefix = "curate." if section_of_command() == "retrain" else ""
    is_table = isinstance(config.dataset, TableConfig)
    on = f"{prefix}fetch.enabled=true {prefix}fetch.contact=you@example.org to fetch, or"
    raise UserError(
        f"{idle[0]} has no effect: {why} (fetch.enabled is false). Type {on + ' ' if is_table else ''}"
        f"{prefix}fetch.enabled=false to go on without, or leave it out"
    )


def _overrides() -> list[str]:
    """All settings that are not the defaults': typed, and of an experiment's file."""
    if not HydraConfig.initialized():
        return []
    return [*HydraConfig.get().overrides.task]


@contextmanager
def reading(dataset: DatasetConfig) -> Iterator[None]:
    """Keep others from replacing the shards of fetched pictures while they are read.

    Where the folder is read-only, or nothing was fetched into it, nothing is locked.

    Raises:
        Busy: another process fetches into it.
    """
    folder = dataset.images_dir if isinstance(dataset, TableConfig) else None
    if folder is None or not (Path(folder) / FETCHED).is_file():
        yield
        return
    with locked(Path(folder), "dataset.images_dir", shared=True):
        yield


def _fetch(config: CurateConfig, dataset: TableConfig, fetch: FetchConfig) -> None:
    from curate.fetch import stage

    _check_folder(dataset.images_dir)
    before = stage.states_in(dataset)
    # Where nothing came, there is no run yet that curate.retry could name.
    nothing_came = bool(before) and not before[STORED]
    try:
        states = stage.run(dataset, fetch, again=nothing_came)
    except Busy as error:  # a curation may read there for hours
        raise Busy(f"{error}; to curate what is there by now, type fetch.enabled=false") from error
    total, stored = sum(states.values()), states.get(STORED, 0)
    failed = sorted(
        ((count, state) for state, count in states.items() if state != STORED and count),
        reverse=True,
    )
    causes = "; ".join(f"{count:,} {STATES[state]}" for count, state in failed[:_COMMONEST])
    if others := sum(count for count, _ in failed[_COMMONEST:]):
        causes += f"; {others:,} for other reasons"
    if not stored:
        raise UserError(
            f"none of the {total:,} pictures could be fetched ({causes or 'the table has no address'}); the "
            f"parquet files in {dataset.images_dir} say of each why. Where the cause is mended, type the same "
            "command again: what may pass is then asked for again"
        )
    print(f"fetched: {stored:,} of {total:,} pictures{f'; not: {causes}' if causes else ''}")
    if passing := sum(count for count, state in failed if state in TRANSIENT):
        print(
            f"  {passing:,} of the failures may pass: python -m curate.retry {named(config.run.folder)} asks for "
            "these again, once this curation has ended"
        )
    sys.stdout.flush()


def _check_folder(folder: str | None) -> None:
    """Refuse what pictures cannot be fetched into."""
    refuse_local_only(
        "dataset.images_dir",
        folder,
        "pictures are fetched to this machine, type dataset.images_dir=FOLDER",
    )
    if folder is None:
        return  # refused with what to type by the fetch itself
    above = next(path for path in [Path(folder), *Path(folder).absolute().parents] if path.exists())
    if not above.is_dir():
        raise UserError(
            f"dataset.images_dir={folder}: {above} is a file, and pictures are fetched into a folder; type "
            "dataset.images_dir=FOLDER"
        )
    if not os.access(above, os.W_OK):
        raise UserError(
            f"dataset.images_dir={folder}: this user cannot write to {above}; let it (ls -ld, chmod, chown), or "
            "type dataset.images_dir=FOLDER with another folder"
        )


def _offer(config: CurateConfig, dataset: TableConfig) -> None:
    """Say how many pictures there are to fetch; nothing where the table is not there or has no addresses."""
    found = _size(dataset)
    if found is None or not found.requests:
        return
    from curate.fetch import plan

    place = dataset.images_dir or str(plan.beside(dataset.path))
    key = "curate.fetch" if section_of_command() == "retrain" else "fetch"
    if config.dry_run:
        what = f"dry_run looks at pictures and fetches none. To fetch the first {config.dry_run:,}, type"
        more = [f"dataset.limit={config.dry_run}"]
    else:
        what, more = (
            "Nothing is fetched unasked. To fetch them, type, with an address of your own",
            [],
        )
    if dataset.images_dir is None:
        more.append(f"dataset.images_dir={place}")
    more += [f"{key}.enabled=true", f"{key}.contact={config.fetch.contact or _EXAMPLE}"]
    raise UserError(
        f"{dataset.path} lists about {found.requests:,} addresses of pictures, and there are none in {place}. They would "
        f"take about {size(found.bytes)}. {what}\n"
        f"  {_retyped(dataset, more)}\n"
        "or where they are, if you have them, such as what img2dataset wrote: dataset.images_dir=FOLDER"
    )


def _size(dataset: TableConfig) -> Size | None:
    """About how much there is to fetch; None where the table is not there or has no addresses."""
    from curate.fetch import requests
    from curate.readers.tables.entries import find

    try:
        return requests.about(dataset, find(dataset, []))
    except (FileNotFoundError, UserError):
        return None  # whoever reads the table says what is wrong, and what to type


def _has_files(folder: str | None) -> bool:
    """Whether a folder has anything in it but hidden files."""
    if is_remote(folder):
        return True  # the reader looks into it
    if folder is None or not Path(folder).is_dir():
        return False
    names = (path.name for path in Path(folder).iterdir())
    return any(not name.startswith(".") and name != FETCHED for name in names)


def _retyped(dataset: TableConfig, more: list[str]) -> str:
    """The command line that was typed, with further settings."""
    retrains = section_of_command() == "retrain"
    keys = {key_of(text) for text in more} | {"dry_run"}
    given = [text for text in typed() or [] if text[:2] != "--" and key_of(text) not in keys]
    command = COMMANDS["retrain" if retrains else "curate"]
    return " ".join([command, shlex.join([*(given or [f"dataset={dataset.name}"]), *more])])
