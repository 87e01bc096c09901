"""The run that ``gate.against`` names: opened, and refused where it is no measure of the run that is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.decide.config import HELD_OUT
from curate.run.folder import curate_dir_of
from curate.run.joined import FOLDER
from curate.run.manifest import Manifest, read_manifest
from curate.run.schema import UserError
from evaluate.judged_runs import comparable
from evaluate.judged_runs.comparable import GRID, Shared
from evaluate.judged_runs.judged import Judged, find, open_judged
from evaluate.measure_config import MeasureConfig
from finetune import joined

KEY = "gate.against"
METRIC = "against_change"


@dataclass(frozen=True)
class Against:
    """The other run, and the held-out pictures that both can be measured on, by split.

    Pictures on which one of the runs was trained, or on near copies of which, are not among them.
    """

    run: Judged
    pictures: dict[str, Shared]

    def refuse_other_units(self, run_dir: Path, origin: Mapping[str, str]) -> None:
        """Refuse where the losses of the run that is judged, of this origin, are in other units.

        Raises:
            UserError: says which.
        """
        comparable.refuse_other_units(self.run.run_dir, self.run.origin, run_dir, origin)

    def instrument(self, on: str) -> dict[str, str]:
        """What the gate says beside a rule on :data:`METRIC`, which was measured on a split."""
        step = f"step {self.run.kept:,}" if self.run.kept else "its base"
        left_out = self.pictures[on].left_out if on in self.pictures else {}
        unfair = left_out.get(comparable.TRAINED_ON)
        without = f", without {unfair} pictures {comparable.TRAINED_ON}" if unfair else ""
        return {METRIC: f"against {self.run.name}, {step}{without}"}


@dataclass(frozen=True)
class _Unmeasured:
    """The run that is judged, before it is: all that its curations hold out counts as measured."""

    run_dir: Path
    curations: Sequence[Path]  # that its training will join; none where it stands on one

    @property
    def curate_dir(self) -> Path:
        return self.run_dir / FOLDER if self.curations else curate_dir_of(self.run_dir)

    @property
    def manifest(self) -> Manifest:
        if self.curations:
            return joined.manifest_of(self.curate_dir, self.curations)
        return read_manifest(self.curate_dir)

    @property
    def removed(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def keys(self, split: str) -> list[str]:
        return comparable.held_out(self, split)


def opened(name: str | None, config: MeasureConfig) -> Against | None:
    """The run that ``gate.against`` names; None where it names none. No model is needed for it.

    Args:
        name: as typed: a run below ``run.root``, or its folder.
        config: of the evaluation.

    Raises:
        UserError: there is no such run, it was not judged or by another grid, no held-out picture is common to
            both, or one of them was trained on so many of these that what is left is no measure; says what to type.
    """
    if name is None:
        return None
    run_dir = config.run.folder
    folder = find(name, run_dir.parent, KEY)
    if folder.resolve() == run_dir.resolve():
        raise UserError(f"{KEY}={name} is the run that is judged; type {KEY}= and another run")
    run = open_judged(folder)
    comparable.refuse_other_settings(
        folder,
        {
            **{f"grid.{name}": run.setting("grid")[name] for name in GRID},
            "precision": run.precision,
        },
        run_dir,
        {
            **{f"grid.{name}": getattr(config.grid, name) for name in GRID},
            "precision": config.precision,
        },
    )
    return Against(run, pictures_of_both(run, run_dir))


def pictures_of_both(
    run: Judged, run_dir: Path, curations: Sequence[Path] = ()
) -> dict[str, Shared]:
    """The held-out pictures that a judged run and one that may not be trained yet can both be measured on, by split.

    Args:
        run: that was judged. run_dir: of the other one.
        curations: the folders ``curate`` that the other one's training will join, until it has begun.

    Raises:
        UserError: there are none, or too few that neither was trained on; says what to type.
    """
    ours = _Unmeasured(run_dir, curations)
    found = {split: comparable.shared((run, ours), split) for split in HELD_OUT}
    comparable.refuse_nothing_shared((run, ours), found["val"])
    return comparable.without_trained_on((run, ours), found)
