"""The command ``python -m workflows.promote``: promote a run of a series by hand, or go back to the one before."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from curate.run import cli, folder
from curate.run.schema import UserError
from workflows.retraining import history_page, promotion, registry
from workflows.retraining.series import FOLDER, Series, all_of, series_of

_DOES = """Promote a judged run of python -m workflows.retrain, whatever its gate said, or go back to the run that
was promoted before. FOLDER/SERIES-series/current.json then names it, and so does the model registry of the last retraining, if it has
one (registry.mlflow.url); nothing else changes."""


def main() -> None:
    """Move the pointer, and say so in the history."""
    parser = ArgumentParser(
        prog="python -m workflows.promote",
        description=_DOES,
        epilog=folder.EXIT_CODES.replace("130", "75 a retraining is at work, 130"),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run's folder, or the name of one in runs/"
    )
    parser.add_argument(
        "--rollback",
        metavar="SERIES",
        nargs="?",
        const="",
        help="go back to the run that was promoted before; SERIES may be left out where there is only one",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), metavar="FOLDER", help="of all runs"
    )
    given = parser.parse_args()
    if (given.run is None) == (given.rollback is None):
        parser.error("type a RUN to promote, or --rollback")
    if given.rollback is not None:
        series = named(given.root, given.rollback)
        with series.locked("series"):
            promotion.roll_back(series, print)
            history_page.write(series)
            registry.follow_again(series, print)
        return
    run_dir = found_run(given.root, given.run)
    series = series_of(run_dir)
    if series is None:
        raise UserError(
            f"{run_dir} is no run of a retraining; the runs are called NAME-0001 and so on, see python -m workflows.history"
        )
    with series.locked("series"):
        promotion.by_hand(series, run_dir.name, print)
        history_page.write(series)
        registry.follow_again(series, print)


def named(root: Path, name: str) -> Series:
    """A series by its name, or the only one below ``root`` for "".

    Raises:
        UserError: there is no such series, or several; lists them.
    """
    known = {series.name: series for series in all_of(root)}
    if name.removesuffix(FOLDER) in known:
        return known[name.removesuffix(FOLDER)]
    if not name and len(known) == 1:
        return next(iter(known.values()))
    holds = f"{root} holds {', '.join(known)}" if known else f"{root} holds none"
    what = f"{name} is no series" if name else "which series? Type its name"
    raise UserError(f"{what}; {holds}. A series is made by python -m workflows.retrain")


def found_run(root: Path, run: str) -> Path:
    """The folder of a run, from its path or its name below ``root``.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is a series; names its last run that can be promoted.
    """
    for path in (Path(run).expanduser(), root / run):
        if path.is_dir() and not path.name.endswith(FOLDER):
            return path if path.name else path.resolve()
    for series in all_of(root):
        if series.name == Path(run).name.removesuffix(FOLDER):
            raise UserError(f"{run} is a series, and a run of it is promoted; {_runs_of(series)}")
    raise FileNotFoundError(f"there is no run {run}, neither that folder nor {root / run}")


def _runs_of(series: Series) -> str:
    """What to type for the last run of a series that can be promoted."""
    known = [record.run for record in series.records() if record.outcome and record.export]
    below = "" if series.root == Path("runs") else f" --root {shlex.quote(str(series.root))}"
    listed = "python -m workflows.history lists all"
    if not known:
        return f"none has come to its end with a checkpoint to promote; {listed}"
    return f"type python -m workflows.promote {shlex.quote(known[-1])}{below}, the last that can be; {listed}"


if __name__ == "__main__":
    cli.run(main)
