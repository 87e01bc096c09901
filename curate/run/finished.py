"""Runs of a retraining that has ended: nothing in them is replaced any more."""

from __future__ import annotations

import shlex
from pathlib import Path

from curate.run.datasets import retraining_of
from curate.run.files import read_json
from curate.run.schema import UserError

RECORD = "retrain.json"  # in a run's folder, see ``workflows.retraining.record``


def refuse_finished(run_dir: Path) -> None:
    """Refuse to curate, train or judge in a run that a retraining has finished, since others rely on it.

    So do they on the curations of its data sets, which are in runs beside it.

    Raises:
        UserError: says what to type instead.
    """
    retraining, dataset = retraining_of(run_dir.name)
    if retraining:
        path = run_dir.with_name(retraining) / RECORD
        known = read_json(path, sealed=True)
        if known is None or dataset in known.get("datasets", ()):
            _refuse(run_dir, path)
    _refuse(run_dir, run_dir / RECORD)


def _refuse(run_dir: Path, path: Path) -> None:
    """The same by the record of a retraining."""
    content = read_json(path, sealed=True)
    if content is None and path.is_file():
        raise UserError(
            f"{path} is damaged, so that nobody knows whether its retraining has finished. Restore it from a backup, "
            "or type another run.name"
        )
    if content and content.get("outcome"):
        same_shards = shlex.quote(f"data.run={run_dir.name}")
        raise UserError(
            f"{run_dir} is a finished retraining ({content['outcome']}), which is not changed any more. Type another "
            f"run.name; to train and judge on the same shards: run.name=NEW {same_shards}"
        )
