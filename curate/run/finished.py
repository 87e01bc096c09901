"""Runs of a retraining that has ended: nothing in them is replaced any more."""

from __future__ import annotations

import shlex
from pathlib import Path

from curate.run.datasets import retraining_of
from curate.run.files import read_json
from curate.run.next_command import COMMANDS
from curate.run.provenance import curate_command
from curate.run.schema import UserError

RECORD = "retrain.json"  # in a run's folder, see ``workflows.retraining.record``


def is_of_retraining(run_dir: Path) -> bool:
    """Whether a retraining made the run: it then types the next command itself, and a new run takes other settings."""
    return (run_dir / RECORD).is_file()


def is_finished(run_dir: Path) -> bool:
    """Whether :func:`refuse_finished` refuses: a retraining has finished it, or nobody knows whether it has."""
    path = run_dir / RECORD
    content = read_json(path, sealed=True)
    return path.is_file() and (content is None or bool(content.get("outcome")))


def to_mend(run_dir: Path, otherwise: str) -> str:
    """What to do about a damaged or missing file of a run.

    Args:
        run_dir: of the run.
        otherwise: that of a run in which commands may write the file again, such as "type: ...".
    """
    if not is_finished(run_dir):
        return otherwise
    return (
        f"restore it from a backup, since {run_dir} is a finished retraining, in which no command writes it again. "
        "Without a backup, promote another run of the series (python -m workflows.promote RUN), or make a new one: "
        f"{COMMANDS['retrain']} as before with another setting, such as train.train.seed=1"
    )


def curate_again(run_dir: Path) -> str:
    """The same for what the run's curation writes."""
    return to_mend(run_dir, f"type: {curate_command(run_dir)}")


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
