"""Whether a run could be compared with the promoted one, known before it is curated or, of its pictures, trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.decide.config import SMALLEST_JUDGED
from curate.run.provenance import read_config
from curate.run.schema import UserError
from evaluate.judged_runs import against
from evaluate.judged_runs.comparable import GRID
from evaluate.judged_runs.judged import open_judged
from workflows.retraining import promotion, run_files
from workflows.retraining.commands import Settings


def refuse_other_settings(promoted: Path, settings: Settings) -> None:
    """Refuse settings by which held-out losses would be measured otherwise than those of the promoted run.

    Args:
        promoted: its folder.
        settings: of the run to be made.

    Raises:
        UserError: names each setting with both values, and the way out.
    """
    found = [
        f"{name} was {before} for {promoted.name} and is {now}"
        for name, before, now in _differing(promoted, settings)
    ]
    if found:
        raise UserError(
            f"{'; '.join(found)}: the new run could not be compared with the promoted one, {promoted.name}, on the "
            "same held-out pictures. Set that back, or type compare_with=base, so that this run has to be better than "
            "the base model only; once it is promoted, remove compare_with=base again"
        )


def examine_pictures(promoted: Path, run_dir: Path) -> str:
    """Whether a curated run holds out enough of what the promoted one was judged by, known before it is trained.

    Args:
        promoted: the promoted run's folder. run_dir: of the run to be trained.

    Returns:
        A warning where the gate can only be undecided; else "".

    Raises:
        UserError: they could not be compared at all, as the evaluation would say after the training.
    """
    several = run_files.curate_dirs(run_dir) if run_files.weights(run_dir) else ()
    found = against.pictures_of_both(open_judged(promoted), run_dir, several)
    if any(each.judged for each in found.values()):
        return ""
    counts = " and ".join(f"{len(set(each.groups))} in {split}" for split, each in found.items())
    return (
        f"warning: {promoted.name} was measured on too few of the pictures that {run_dir.name} holds out: groups in "
        f"common are {counts}, and {SMALLEST_JUDGED} on one side are needed. The gate can only be undecided; to be "
        "compared with the base model alone, stop this, and type the same with compare_with=base"
    )


def _differing(promoted: Path, settings: Settings) -> Iterator[tuple[str, Any, Any]]:
    judged = promotion.judged(promoted)
    if judged is None:
        raise UserError(
            f"the evaluation of the promoted run in {promoted} is damaged or gone. Restore it from a backup, or "
            "promote another run by python -m workflows.promote RUN, or type compare_with=base"
        )
    before, now = judged.provenance["evaluate"], settings.composed["evaluate"]
    pairs = [
        (f"evaluate.grid.{name}", value, now["grid"][name])
        for name, value in before.get("grid", {}).items()
        if name in GRID
    ]
    pairs.append(("evaluate.precision", before.get("precision", "no"), now["precision"]))
    was: Mapping[str, Any] = read_config(promoted / "finetune" / "config.yaml").get("model") or {}
    model = settings.composed["train"]["model"]
    pairs += [(f"train.model.{name}", value, model.get(name)) for name, value in was.items()]
    return ((name, one, other) for name, one, other in pairs if one != other)
