"""Several data sets that one experiment lists: the settings of each, and what is refused of them.

Each has a section ``curate NAME`` in place of the section ``curate``, whose settings hold for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from curate.run import datasets
from curate.run.overrides import key_of, value_of
from curate.run.schema import UserError

_COMMANDS = ("curate", "train", "evaluate")
_SERIES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # what data.runs takes as a name unquoted


def section_of(name: str) -> str:
    """The section of a data set's curation.

    >>> section_of("photos"), section_of("")
    ('curate photos', 'curate')
    """
    return f"curate {name}" if name else "curate"


def command_of(section: str) -> str:
    """The command that takes a section's settings."""
    return section.partition(" ")[0]


def dataset_of(section: str) -> str:
    """The data set that a section is of; "" where that is the only one, or the section of another command."""
    return section.partition(" ")[2]


def shown(section: str) -> str:
    """What stands in front of a key of a section where it is typed.

    >>> shown("curate photos")
    'datasets.photos.curate'
    """
    command, _, name = section.partition(" ")
    return f"{datasets.KEY}.{name}.{command}" if name else command


def sections_of(names: Mapping[str, float]) -> list[str]:
    """All sections, of these data sets; of none the one of the only data set."""
    return [*(section_of(name) for name in names or ("",)), *_COMMANDS[1:]]


def check_series(name: str) -> None:
    """Refuse a series whose runs ``data.runs`` could not name."""
    if not _SERIES.fullmatch(name):
        raise UserError(
            f"run.name={name}: with several data sets the name of a series has letters A-Z a-z, digits, _ and - only; "
            "type run.name=mine"
        )


def parts(
    path: Path | None,
    sections: Mapping[str, Sequence[str]],
    handed: Mapping[str, Sequence[str]],
    weights: Mapping[str, float],
) -> dict[str, list[str]]:
    """The arguments of each data set's curation beside the experiment, by section; of two values the later wins.

    Args:
        path: of the experiment. sections: as it is read.
        handed: what was typed, by section.
        weights: of the data sets, by name.

    Raises:
        UserError: settings for a data set that is not listed, or settings for all that say what one of them reads.
    """
    for section in handed:
        name = dataset_of(section)
        if name and name not in weights:
            listed = ", ".join(weights) or "none is"
            raise UserError(
                f"{shown(section)}.{handed[section][0]}: there is no data set {name} (listed: {listed}); type "
                f"{datasets.KEY}.{name}.weight=1 as well to add it"
            )
    found = {}
    for name in weights:
        section = section_of(name)
        own, typed = sections.get(section, ()), handed.get(section, ())
        for where, common in (
            (f"{path}, section curate: ", sections.get("curate", ())),
            ("curate.", handed["curate"]),
        ):
            _refuse_contradiction(where, common, section, [*own, *typed])
        found[section] = [*own, *handed["curate"], *typed]
    return found


def _refuse_contradiction(
    where: str, common: Sequence[str], section: str, own: Sequence[str]
) -> None:
    """Refuse that all data sets are said to read what one of them reads otherwise."""
    known = {key_of(text): value_of(text) for text in own}
    for text in common:
        key = key_of(text)
        if key.partition(".")[0] == "dataset" and known.get(key, value_of(text)) != value_of(text):
            raise UserError(
                f"{where}{text} is for all data sets, and {shown(section)}.{key}={known[key]} says otherwise; remove one, "
                f"or give each data set its own: {shown(section)}.{key}=..."
            )


def refuse_alike(composed: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse two data sets that read the same, or that two CLIPs would measure.

    Args:
        composed: each section's whole configuration.

    Raises:
        UserError: names both.
    """
    for (one, first), (other, second) in combinations(_curated(composed), 2):
        if first.get("dataset") == second.get("dataset"):
            raise UserError(
                f"the data sets {one} and {other} read the same: dataset.* of both are equal. Say what each reads, such as "
                f"{shown(section_of(other))}.dataset.root=FOLDER"
            )
        clips = [values.get("clip") or {} for values in (first, second)]
        if any(clips[0].get(name) != clips[1].get(name) for name in ("name", "pretrained")):
            raise UserError(
                f"the data sets {one} and {other} have two CLIPs ({clips[0].get('name')} {clips[0].get('pretrained')} and "
                f"{clips[1].get('name')} {clips[1].get('pretrained')}), whose similarities do not compare. Set clip for all "
                "of them, in the section curate:"
            )


def _curated(
    composed: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data sets' names and their curations' configurations."""
    for section, values in composed.items():
        if name := dataset_of(section):
            yield name, values
