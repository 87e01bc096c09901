"""What ``report.json`` and ``reconsider.csv`` hold of the data: slices of held-out pictures, pairs to reconsider."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run import reconsider as reconsider_list
from evaluate.measure import reconsider, training_pictures
from evaluate.metrics.slices import LEAST_GROUPS, Slice
from evaluate.results import DoubtResult, Metric, Results, SliceResult
from finetune.intervals import Estimate

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

PICTURES_SHOWN = 8  # of the pairs to reconsider
_FEW = f"fewer than {LEAST_GROUPS} groups of pictures, in it or beside it"


def slices(evaluation: Evaluation) -> tuple[SliceResult, ...]:
    """The slices, and last the dimensions that pictures cannot be divided by; none where nothing changed."""
    if evaluation.too_few or evaluation.kept == 0:
        return ()
    judged = [
        SliceResult(
            one.dimension, one.label, _metric(one.change, one), _metric(one.difference, one)
        )
        for one in evaluation.slices
    ]
    undivided = [
        SliceResult(dimension, "", Metric(reason=why), Metric(reason=why))
        for dimension, why in evaluation.parts.missing.items()
    ]
    return (*judged, *undivided)


def _metric(found: Estimate | None, one: Slice) -> Metric:
    if found is None:
        return Metric(n=one.pictures, groups=one.groups, on="val", reason=_FEW)
    return Metric.of(found, "val")


def doubts(evaluation: Evaluation) -> tuple[DoubtResult, ...]:
    """The pairs to reconsider; copies the pictures of the first ones."""
    found = evaluation.caption_gains
    listed = reconsider.doubts(found) if found else []
    files = training_pictures.save(
        evaluation.curate_dir,
        evaluation.manifest.shards_of("train"),
        [doubt.key for doubt in listed[:PICTURES_SHOWN]],
        evaluation.folder / "samples" / "reconsider",
    )
    shown = {key: str(path.relative_to(evaluation.folder)) for key, path in files.items()}
    return tuple(DoubtResult(**asdict(doubt), file=shown.get(doubt.key, "")) for doubt in listed)


def write_list(found: Results, folder: Path) -> None:
    """Write ``reconsider.csv``; where nothing was measured, an earlier one goes."""
    path = folder / reconsider_list.FILE
    if found.metrics["pairs_to_reconsider"].value is None:
        path.unlink(missing_ok=True)
        return
    reconsider_list.write(path, found.reconsider)
