"""The data sets of a retraining (``retrain.datasets``): what they may be called, and where their curations are.

A retraining ``mine-0003`` of the data sets ``own`` and ``photos`` curates them in the runs ``mine-0003-own`` and
``mine-0003-photos`` beside its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from curate.run.schema import UserError

KEY = "datasets"
WEIGHT = 1.0  # of one that names none

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_OF_A_SERIES = re.compile(
    r"(.*-)?([0-9]{4,}(-.*)?|series)"
)  # is in names of folders that are other things
_CURATED = re.compile(r"(.+-[0-9]{4,})-(.+)")
_SETTING = re.compile(rf"{KEY}\.([^.]+)(\.curate(?:\.(.+))?|\.weight)?")

Settings = list[tuple[str, Any]]
"""Dotted keys and their values, as an experiment's file has them."""


def check_name(name: str) -> None:
    """Raise a ``UserError`` if a data set may not be called so."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{KEY}: {name!r} cannot be a data set's name, which is part of a folder's: use letters A-Z a-z, digits, "
            f"_ and -, and begin with no -. Type {KEY}.photos"
        )
    if _OF_A_SERIES.fullmatch(name):
        raise UserError(
            f"{KEY}: {name!r} cannot be a data set's name: a folder that ends with it looks like one of a series. "
            f"Type {KEY}.{name.replace('-', '_') if '-' in name else f'set_{name}'}"
        )


def run_of(run: str, dataset: str) -> str:
    """The run that holds the curation of one of a retraining's data sets.

    >>> run_of("mine-0003", "photos")
    'mine-0003-photos'
    """
    return f"{run}-{dataset}"


def retraining_of(run: str) -> tuple[str, str]:
    """The retraining whose data set a run may be the curation of, and the data set; ``("", "")`` if it is none.

    >>> retraining_of("mine-0003-photos"), retraining_of("mine-0003")
    (('mine-0003', 'photos'), ('', ''))
    """
    found = _CURATED.fullmatch(run)
    return (found[1], found[2]) if found else ("", "")


def parted(where: str, settings: Iterable[tuple[str, Any]]) -> tuple[Settings, dict[str, Settings]]:
    """The settings of a retraining without those of its data sets' curations, and these by data set.

    Every data set has a weight in the first.

    Raises:
        UserError: a data set may not be called so; ``where`` begins the message.
    """
    rest: Settings = []
    curated: dict[str, Settings] = {}
    for key, value in settings:
        found = _SETTING.fullmatch(key)
        is_empty = value is None or value == {}
        if key == KEY:
            if not is_empty:
                raise UserError(
                    f"{where}: {KEY}: {value} names no data sets; write {KEY}: {{photos: {{weight: 0.3, curate: "
                    "{dataset.root: FOLDER}}}"
                )
            continue
        if found is None:
            rest.append((key, value))
            continue
        name, part, of_curation = found.groups()
        try:
            check_name(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        of_dataset = curated.setdefault(name, [])
        if of_curation:
            of_dataset.append((of_curation, value))
        elif part == ".weight" or not is_empty:
            rest.append((key, value))
    weighted = {key for key, _ in rest}
    rest += [
        (f"{KEY}.{name}.weight", WEIGHT)
        for name in curated
        if not {f"{KEY}.{name}.weight", f"{KEY}.{name}"} & weighted
    ]
    return rest, curated
