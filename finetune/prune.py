"""The command ``python -m finetune.prune RUN``: delete the checkpoints that the verdict did not choose."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from curate.run import checksums, cli, folder
from curate.run.files import read_json, remove_folder
from curate.run.finished import refuse_finished
from curate.run.locks import locked
from curate.run.next_command import run_arguments
from curate.run.provenance import read_config
from curate.run.schema import UserError
from finetune.config import AUTO, refuse_damaged
from finetune.methods import METHODS

_DOES = """Delete the checkpoints of a judged training that the verdict did not choose.

What stays: the checkpoint to keep, the exported one, the newest checkpoint.keep (where that is null, the last), from
which training goes on, and every export. What is deleted can neither be drawn from nor judged again, so that another
evaluation sees fewer checkpoints; its results in RUN/evaluate stay as they are."""


def main() -> None:
    """Look at the verdict, delete, and say what that freed."""
    parser = folder.parser("prune", _DOES, package="finetune")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    given = parser.parse_args()
    run_dir = folder.stage_dir(given.run, folder.TRAINED).resolve().parent
    refuse_finished(run_dir)
    refuse_damaged(run_dir)
    with locked(run_dir / "evaluate", shared=True), locked(run_dir / "finetune"):
        chosen = chosen_steps(run_dir)
        found = unchosen(run_dir, chosen, kept_states(run_dir) or 1)
        size = sum(file.stat().st_size for path in found for file in path.iterdir())
        if not given.dry_run:
            delete(run_dir, found)
    names = f": {', '.join(path.name for path in found)}" if found else ""
    done = "would be deleted" if given.dry_run else "deleted"
    print(f"{len(found)} checkpoints {done} ({size / 1e9:.2f} GB){names}")


def kept_states(run_dir: Path) -> int | None:
    """``checkpoint.keep`` of a training; None: everything stays, or nothing says what it is."""
    config: Any = read_config(run_dir / "finetune" / "config.yaml")
    keep = config["checkpoint"]["keep"] if config else None
    return METHODS[config["method"]["name"]].kept_states if keep == AUTO else keep


def chosen_steps(run_dir: Path) -> set[int]:
    """The checkpoint to keep and the exported one, as the verdict on all checkpoints says.

    Raises:
        UserError: the run was not judged, or not since its last checkpoint.
    """
    report = read_json(run_dir / "evaluate" / "report.json") or {}
    verdict = report.get("verdict")
    if not verdict:
        raise UserError(
            f"{run_dir} was not judged, so that no checkpoint is chosen; type first: python -m evaluate "
            f"{run_arguments(run_dir)}"
        )
    last = max(_steps(run_dir).values(), default=0)
    if verdict["last"] < last:
        raise UserError(
            f"{run_dir} was trained on after it was judged, to step {last}; type first: python -m evaluate "
            f"{run_arguments(run_dir)}"
        )
    return {verdict["kept"], verdict["exported"]}


def _steps(run_dir: Path) -> dict[Path, int]:
    """The step of each checkpoint, the earliest first."""
    paths = sorted((run_dir / "finetune" / "checkpoints").glob("step-*"))
    return {path: int(path.name.removeprefix("step-")) for path in paths}


def unchosen(run_dir: Path, chosen: Collection[int], newest: int) -> list[Path]:
    """The folders of all checkpoints but the chosen, the best and the newest ones."""
    steps = _steps(run_dir)
    best = run_dir / "finetune" / "checkpoints" / "best"
    stays = {best.readlink().name} if best.is_symlink() else set()
    older = list(steps)[:-newest]
    return [path for path in older if steps[path] not in chosen and path.name not in stays]


def delete(run_dir: Path, paths: Collection[Path]) -> None:
    """Delete checkpoints; killed meanwhile, each is there as a whole or not at all."""
    if not paths:
        return
    finetune_dir = run_dir / "finetune"
    with checksums.updated(finetune_dir, ()):
        for path in paths:
            remove_folder(path)


if __name__ == "__main__":
    cli.run(main)
