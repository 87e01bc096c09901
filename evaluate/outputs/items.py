"""``samples.jsonl``: a line for each held-out and training picture that was measured, with its losses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluate.results import rounded
from finetune.heldout import relative

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation


def lines(evaluation: Evaluation) -> str:
    """The file's text: JSON objects, one a line.

    Their keys: ``split``, ``key``, ``group`` (duplicate group), ``caption``, and ``loss``: of the base, of
    the checkpoint to keep and of the last, in units of the base's mean loss, see
    ``finetune.heldout.relative``.
    """
    return "".join(
        json.dumps(rounded(item), ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        for item in _items(evaluation)
    )


def _items(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    table = evaluation.table
    rows = {"base": 0, "kept": evaluation.kept, "last": evaluation.evidence.last}
    splits = (
        ("val", table.val, table.keys, table.groups),
        ("train", table.train_probe, table.train_probe_keys, table.train_probe_groups),
    )
    for split, losses, keys, groups in splits:
        captions = evaluation.run.captions(split, len(keys), evaluation.device)
        scores = {
            name: relative(losses[row], losses[0], groups).tolist() for name, row in rows.items()
        }
        for number, (key, group, caption) in enumerate(zip(keys, groups, captions, strict=True)):
            measured = {name: _finite(values[number]) for name, values in scores.items()}
            yield {"split": split, "key": key, "group": group, "caption": caption, "loss": measured}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def digests(evaluation: Evaluation) -> dict[str, str]:
    """SHA-256 of the keys that were measured, by split, and of the curation's shards.

    Two evaluations with equal digests measured the same pictures.
    """
    table = evaluation.table
    known = {"val": table.keys, "train_probe": table.train_probe_keys}
    found = {
        name: hashlib.sha256("\n".join(keys).encode()).hexdigest() for name, keys in known.items()
    }
    return {**found, "shards": evaluation.manifest.digest()}
