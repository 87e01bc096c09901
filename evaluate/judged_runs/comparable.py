"""Whether two or more judged runs can be compared, and on which held-out pictures.

Losses are compared picture by picture. So all runs have to be measured on the same grid and in the same
latents, and a picture counts only where all have measured it, with the same bytes and the same caption. A
run that was trained on one of these pictures, or on a near copy of it, would look better than it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from curate.decide.config import HELD_OUT, SMALLEST_JUDGED
from curate.run import joined
from curate.run.manifest import Manifest
from curate.run.next_command import COMMANDS, run_arguments
from curate.run.schema import UserError
from evaluate.results import Metric
from finetune.sidecars import read_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluate.judged_runs.judged import Judged

GRID = ("bins", "draws", "seed")

TRAINED_ON = "near one that a run was trained on"
"""Why a picture is left out."""

LARGEST_LEFT_OUT = 0.2
"""Share of the groups of shared pictures that may be left out because a run was trained on near copies of them. If
data grow by 10 % and every new picture is near one old group, new pictures join 10 % of the held-out groups, and few
of these to training pictures; two splits that know nothing of each other have most near copies on several sides."""

_IDENTITY = ("key", "sha256", "duplicate_group")
_COLUMNS = (*_IDENTITY, "caption")
_UNITS = {
    "latents": "in the latents of another VAE or at another model.resolution or other buckets, or with other masks or "
    "conditions",
    "noise": "at other noise levels, or with a network that predicts something else",
}


class Measured(Protocol):
    """A run of which held-out pictures are known: ``judged.Judged``, or one that is judged now."""

    @property
    def run_dir(self) -> Path:
        """Of the run."""
        ...

    @property
    def curate_dir(self) -> Path:
        """Of the curation that it was trained on."""
        ...

    @property
    def manifest(self) -> Manifest:
        """Of that curation."""
        ...

    @property
    def removed(self) -> Sequence[Mapping[str, Any]] | None:
        """Pictures that were taken out of it since, with ``key, sha256, split``."""
        ...

    def keys(self, split: str) -> list[str]:
        """Of the measured pictures of a split."""
        ...


@dataclass(frozen=True)
class Shared:
    """The held-out pictures of one split that all runs measured.

    Attributes:
        keys: N, in the order of the first run.
        groups: N; pictures of one group are near copies by the curation of any of the runs.
        captions: N.
        left_out: pictures of the first run that are not among them, by the reason.
    """

    keys: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether there are groups enough for a judgement."""
        return len(set(self.groups)) >= SMALLEST_JUDGED

    def too_few(self, on: str) -> Metric:
        """What a metric is where there are not."""
        count = len(set(self.groups))
        reason = f"only {count} groups of pictures in common; at least {SMALLEST_JUDGED} needed"
        if unfair := self.left_out.get(TRAINED_ON):
            reason += f" ({unfair} pictures left out: {TRAINED_ON})"
        return Metric(n=len(self.keys), groups=count, on=on, reason=reason)

    def rows(self, losses: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """The rows of ``losses`` [M, ...], which are of ``keys``, for the pictures here [N, ...]."""
        place = {key: row for row, key in enumerate(keys)}
        return losses[[place[key] for key in self.keys]]

    def within(self, keys: Collection[str]) -> Shared:
        """Those of the pictures that are among ``keys``."""
        kept = [place for place, key in enumerate(self.keys) if key in keys]

        def take(names: list[str]) -> list[str]:
            return [names[place] for place in kept]

        return Shared(take(self.keys), take(self.groups), take(self.captions), self.left_out)

    def without(self, keys: Collection[str]) -> Shared:
        """Those of the pictures in whose group none is among ``keys``; counts the others as ``TRAINED_ON``."""
        unfair = {group for key, group in zip(self.keys, self.groups, strict=True) if key in keys}
        left = {
            key for key, group in zip(self.keys, self.groups, strict=True) if group not in unfair
        }
        gone = len(self.keys) - len(left)
        found = self.within(left)
        return replace(found, left_out={**self.left_out, TRAINED_ON: gone}) if gone else found


# Settings


def refuse_other_settings(
    first: Path,
    settings: Mapping[str, Any],
    other: Path,
    others: Mapping[str, Any],
) -> None:
    """Refuse two evaluations that measured differently.

    Args:
        first, other: the runs' folders.
        settings: of ``first``, by the dotted key that is typed.
        others: of ``other``.

    Raises:
        UserError: names each key that differs with both values, and what to type.
    """
    keys = sorted({*settings, *others})
    differing = [key for key in keys if settings.get(key) != others.get(key)]
    if not differing:
        return
    listed = "; ".join(
        f"{key} is {settings.get(key)} in {first.name} and {others.get(key)} in {other.name}"
        for key in differing
    )
    typed = shlex.join(f"{key}={settings[key]}" for key in differing if key in settings)
    raise UserError(
        f"{other} was not judged as {first}: {listed}. What they measured is not the same thing. To judge "
        f"{other.name} alike, type: {COMMANDS['evaluate']} {run_arguments(other)} {typed} and its other keys"
    )


def compared_settings(run: Judged) -> dict[str, Any]:
    """What has to be equal for a whole comparison, by the dotted key that is typed."""
    return {
        **{f"grid.{name}": run.setting("grid")[name] for name in GRID},
        **{f"sampler.{name}": value for name, value in run.setting("sampler").items()},
        "samples.seed": run.setting("samples")["seed"],
        "precision": run.precision,
    }


def refuse_other_units(
    first: Path, origin: Mapping[str, str], other: Path, others: Mapping[str, str]
) -> None:
    """Refuse losses of which one unit is not worth the other.

    Args:
        first, other: the runs' folders.
        origin: of ``first``, see ``evaluate.judged_runs.judged.origin_of``.
        others: of ``other``.

    Raises:
        UserError: the latents or the noise differ; says which.
    """
    for name, meaning in _UNITS.items():
        if origin[name] != others[name]:
            raise UserError(
                f"{other} was measured {meaning} than {first} (digest {others[name]:.12}, not {origin[name]:.12}), "
                "so that their losses are no measure of each other. Compare runs that were trained with the same "
                "model.resolution, buckets and objective.mask from base models with the same VAE"
            )


# Pictures


def shared(runs: Sequence[Measured], split: str) -> Shared:
    """The pictures of ``split`` that all runs measured, with the same bytes and the same caption.

    Raises:
        FileNotFoundError, UserError: the curation of a run is not there any more, or is another by now.
    """
    first = runs[0].keys(split)
    common = set(first).intersection(*(run.keys(split) for run in runs[1:]))
    known = [_known(run, split, common) for run in runs]
    left = {"not measured by all": len(first) - len(common)}
    for name, what in (("sha256", "another picture of that key"), ("caption", "another caption")):
        differing = {key for key in common if len({table[key][name] for table in known}) > 1}
        common -= differing
        left[what] = len(differing)
    keys = [key for key in first if key in common]
    groups = [[table[key]["duplicate_group"] or key for key in keys] for table in known]
    return Shared(
        keys,
        _joined(keys, groups),
        [known[0][key]["caption"] or "" for key in keys],
        {reason: count for reason, count in left.items() if count},
    )


def held_out(run: Measured, split: str) -> list[str]:
    """Keys of all pictures that a run's curation has in a split, measured or not."""
    return [key for table in _tables(run, split) for key in table["key"].to_pylist()]


def refuse_nothing_shared(runs: Sequence[Measured], found: Shared) -> None:
    """Refuse runs without a held-out picture in common.

    Raises:
        UserError: says why, and what to type.
    """
    if found.keys:
        return
    names = " and ".join(str(run.run_dir) for run in runs)
    why = "; ".join(f"{count} {reason}" for reason, count in found.left_out.items())
    raise UserError(f"{names} have no held-out picture in common ({why}). {_once(runs)}")


def refuse_trained_on(runs: Sequence[Measured], pictures: Iterable[Shared]) -> None:
    """Refuse runs of which one was trained on a shared held-out picture, or on a near copy of one.

    A picture is recognised by its key, its bytes and its duplicate group, and so is every other held-out
    picture that a run's curation has in the same group.

    Raises:
        UserError: names the run, how many pictures, one of them, and what to type.
    """
    keys = {key for found in pictures for key in found.keys}
    for run, found in _trained_on(runs, keys):
        if found:
            raise UserError(f"{_trained(run, found, keys)}. {_once(runs)}")


def without_trained_on(
    runs: Sequence[Measured], pictures: Mapping[str, Shared]
) -> dict[str, Shared]:
    """Leave out the groups of shared held-out pictures on which, or on near copies of which, a run was trained.

    In a series of curations a new picture may join a held-out one to one that an earlier run was trained on. No
    run is measured on such a picture then; the others are as fair as before. Many of them are a sign of another
    split.

    Args:
        runs: two or more.
        pictures: what they share, by split.

    Raises:
        UserError: more than ``LARGEST_LEFT_OUT`` of the groups would be left out, or no split has groups enough
            for a judgement without them; says what ``refuse_trained_on`` does, and which.
    """
    keys = {key for found in pictures.values() for key in found.keys}
    trained = [(run, found) for run, found in _trained_on(runs, keys) if found]
    if not trained:
        return dict(pictures)
    unfair = {key for _, found in trained for key in found}
    left = {split: found.without(unfair) for split, found in pictures.items()}
    before, after = (
        sum(len(set(found.groups)) for found in each.values()) for each in (pictures, left)
    )
    share = 1 - after / before
    if share <= LARGEST_LEFT_OUT and any(found.judged for found in left.values()):
        return left
    why = (
        f"with their groups that is {share:.0%} of all groups, more than the {LARGEST_LEFT_OUT:.0%} that new data may "
        "join to training pictures, so the two were split differently"
        if share > LARGEST_LEFT_OUT
        else f"without their groups {after} are left, and {SMALLEST_JUDGED} on one side are needed"
    )
    raise UserError(
        f"{_trained(*trained[0], keys)}; {why}. {_once(runs)}. Curations of a series hold out the same pictures by "
        "split.held_out=FILE"
    )


def _trained_on(
    runs: Sequence[Measured], keys: set[str]
) -> Iterator[tuple[Measured, dict[str, str]]]:
    """Each run with those of ``keys`` on which, or on near copies of which, it was trained, and how that shows."""
    relatives = _relatives(runs, keys)
    for run in runs:
        found: dict[str, str] = {}
        for row in _rows(run, "train", {name: set(known) for name, known in relatives.items()}):
            for name in _IDENTITY:
                for key in relatives[name].get(str(row[name]), ()):
                    found.setdefault(key, f"{row['key']!r} in {name} {row[name]}")
        yield run, found


def _trained(run: Measured, found: Mapping[str, str], keys: set[str]) -> str:
    """What is wrong with a run that was trained on some of ``keys``, with one example."""
    key = min(found)
    return (
        f"{run.run_dir} was trained on {len(found)} of the {len(keys)} held-out pictures in common, or on near "
        f"copies of them: {key!r} equals its training picture {found[key]}. On these it would look better "
        "than it is"
    )


def _once(runs: Sequence[Measured]) -> str:
    """What to type for runs that hold out the same pictures."""
    return (
        "Train both on one curation, which holds the same pictures out of both: "
        f"{COMMANDS['train']} {joined.option(runs[0].curate_dir)} run.name=NEW, judge that, and compare again"
    )


def _known(run: Measured, split: str, keys: set[str]) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in _rows(run, split, {"key": keys})}


def _relatives(runs: Sequence[Measured], keys: set[str]) -> dict[str, dict[str, set[str]]]:
    """For each identifying column, its values by which one of ``keys`` would be recognised => these keys."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in _IDENTITY}
    for run in runs:
        for split in HELD_OUT:
            rows = _known(run, split, keys)
            of_group: dict[str, set[str]] = {}
            for key, row in rows.items():
                if group := row["duplicate_group"]:
                    of_group.setdefault(group, set()).add(key)
            members = _rows(run, split, {"duplicate_group": set(of_group)})
            for row in [*rows.values(), *members]:
                whose = of_group.get(row["duplicate_group"], {row["key"]})
                for name in _IDENTITY:
                    if row[name]:
                        found[name].setdefault(str(row[name]), set()).update(whose)
    return found


def _rows(run: Measured, split: str, wanted: Mapping[str, set[str]]) -> Iterator[dict[str, Any]]:
    """Rows of a split's sidecars of which one of the columns has a wanted value; absent columns are None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [pc.field(name).isin(pa.array(sorted(v), pa.string())) for name, v in wanted.items()]
    wants = reduce(or_, parts)
    for table in _tables(run, split):
        yield from table.filter(wants).to_pylist()


def _tables(run: Measured, split: str) -> Iterator[pa.Table]:
    """The sidecars of a split, with the columns ``_COLUMNS`` as text."""
    import pyarrow as pa

    for shard in run.manifest.shards_of(split):
        table = read_columns(run.curate_dir, shard, _COLUMNS)
        columns = [
            table[name].cast(pa.string())
            if name in table.column_names
            else pa.nulls(len(table), pa.string())
            for name in _COLUMNS
        ]
        yield pa.table(columns, names=list(_COLUMNS))
    if split == "train" and (gone := [row for row in run.removed or () if row["split"] == split]):
        # It is in the weights all the same; its group is not known any more.
        known = {name: [row.get(name) for row in gone] for name in _COLUMNS}
        yield pa.table({name: pa.array(values, pa.string()) for name, values in known.items()})


def _joined(keys: Sequence[str], groupings: Iterable[Sequence[str]]) -> list[str]:
    """The finest groups that put together what any of the groupings does, named by their first member."""
    leader = {key: key for key in keys}

    def lead(key: str) -> str:
        while leader[key] != key:
            key = leader[key]
        return key

    for groups in groupings:
        first: dict[str, str] = {}
        for key, group in zip(keys, groups, strict=True):
            one, two = lead(first.setdefault(group, key)), lead(key)
            leader[two] = one
    return [lead(key) for key in keys]
