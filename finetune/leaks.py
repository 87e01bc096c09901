"""Before training: whether held-out pictures have near twins among the training pictures, as the curation measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from curate.decide.config import HELD_OUT, NOTICEABLE, REMEDY
from curate.run.manifest import read_funnel
from curate.run.provenance import curate_command
from curate.run.schema import UserError
from finetune.config import TrainConfig


def examine(config: TrainConfig) -> None:
    """Say or refuse, as ``doctor.leaks`` has it, that too many held-out pictures have a sibling in train.

    The curation searches for siblings after the split, by captions and CLIP embeddings (see
    ``curate.decide.leaks``), and notes in ``funnel.json`` how many are left across it. Nothing is
    computed here.

    Raises:
        UserError: ``doctor.leaks=refuse`` and at least ``NOTICEABLE`` of a side have one.
    """
    if config.doctor.leaks == "off":
        return
    found = warnings(config)
    if found and config.doctor.leaks == "refuse":
        raise UserError(f"{' '.join(found)} To train nevertheless, type doctor.leaks=warn")
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes one says it
        for text in found or unmeasured(config):
            sys.stdout.write(f"{'warning' if found else 'note'}: {text}\n")
        sys.stdout.flush()


def warnings(config: TrainConfig) -> list[str]:
    """A sentence for each held-out side of which at least ``NOTICEABLE`` have a sibling in train."""
    found = []
    for curate_dir in config.curations:
        counts = _measured(curate_dir)
        for side in HELD_OUT:
            looked_at, twins = (
                counts.get(side, {}).get(name, 0) for name in ("looked_at", "with_sibling_in_train")
            )
            if looked_at and twins >= NOTICEABLE * looked_at:
                found.append(
                    f"{twins:,} of {looked_at:,} pictures in {side} have a sibling in train, near in caption "
                    "and picture: the held-out loss shows less overfitting than there is; the pairs are in "
                    f"{curate_dir / 'report.html'}. {REMEDY}, and curate again."
                )
    return found


def unmeasured(config: TrainConfig) -> list[str]:
    """A sentence for each curation that did not compare its sides, and one where there are several."""
    found = [
        "whether held-out pictures have near twins among the training pictures was not measured, as the "
        f"curation has not compared them; to measure it, type: {curate_command(curate_dir.parent)}"
        for curate_dir in config.curations
        if not any(side.get("looked_at") for side in _measured(curate_dir).values())
    ]
    if len(config.curations) > 1:
        found.append(
            "near twins across the curations of data.runs were not looked for; equal pictures and duplicate groups were"
        )
    return found


def _measured(curate_dir: Path) -> dict[str, dict[str, int]]:
    return read_funnel(curate_dir).get("split", {}).get("leaks", {})
