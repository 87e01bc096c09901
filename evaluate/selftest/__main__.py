"""The command ``python -m evaluate.selftest``: whether the judge still judges, on this machine, with these versions."""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from curate.run import cli
from curate.run.overrides import typed
from curate.run.schema import UserError
from evaluate.selftest.case import Case, Outcome

PARTS = {
    "losses": "planted held-out losses: word, kept checkpoint, early stop",
    "rates": "simulated runs over grouped pictures: coverage of intervals, false alarms, power",
    "pictures": "planted pictures: a generator that copies, one that collapsed, healthy ones",
    "captions": "planted caption gains: right and wrong captions before training",
    "leaks": "planted twins across the split",
    "trainings": "two short trainings of the built-in model, in minutes: wrong captions, few pictures",
}
_DOES = """Check that the judge still judges, on this machine and with these versions of packages: plant runs whose
truth is known, ask for each judgement, and compare.

  python -m evaluate.selftest                  everything, about 5 minutes on two cores
  python -m evaluate.selftest losses rates     these parts only

parts
"""
_EXIT_CODES = (
    "exit codes: 0 all judgements right, 1 one is wrong, 2 wrong input, 3 some could not be judged, "
    "70 the program failed, 130 interrupted"
)
_WIDTH = max(map(len, PARTS))


def main() -> None:
    """Judge all cases, and leave with the exit code."""
    listed = "".join(f"  {name:{_WIDTH}}  {text}\n" for name, text in PARTS.items())
    parser = ArgumentParser(
        prog="python -m evaluate.selftest",
        description=_DOES + listed,
        epilog=_EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", metavar="PART", nargs="*", help="of those above; default: all")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where the trainings stay; default: deleted"
    )
    arguments = parser.parse_args(typed())
    parts = arguments.parts or list(PARTS)
    if unknown := [name for name in parts if name not in PARTS]:
        raise UserError(f"there is no part {unknown[0]!r}; the parts are: {', '.join(PARTS)}")
    if arguments.keep and arguments.keep.exists() and any(arguments.keep.iterdir()):
        raise UserError(f"--keep {arguments.keep} is not empty; name a new folder")
    with ExitStack() as stack:
        folder = arguments.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-selftest-"))
        )
        sys.exit(start(parts, folder))


def start(parts: Sequence[str], folder: Path) -> int:
    """Judge the cases of some parts, a line for each, and return the exit code.

    Args:
        parts: of ``PARTS``.
        folder: for the trainings.
    """
    began = time.monotonic()
    outcomes = [
        _announced(part, case) for part in PARTS if part in parts for case in cases_of(part, folder)
    ]
    open_ = sum(outcome.right is None for outcome in outcomes)
    right = sum(bool(outcome.right) for outcome in outcomes)
    wrong = len(outcomes) - right - open_
    unjudged = f", {open_} not judged" if open_ else ""
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    _say(
        f"selftest  {len(outcomes)} judgements: {right} right, {wrong} wrong{unjudged}, in {minutes} min {seconds} s"
    )
    _say(f"versions  {_versions()}")
    return cli.EXIT_GATE_FAILED if wrong else cli.EXIT_UNDECIDABLE if open_ else 0


def cases_of(part: str, folder: Path) -> Iterable[Case]:
    """The cases of a part; heavy modules are loaded only here."""
    from evaluate.selftest import captions, leaks, losses, pictures, rates, trainings

    if part == "trainings":
        return trainings.cases(folder)
    modules = {
        "losses": losses,
        "rates": rates,
        "pictures": pictures,
        "captions": captions,
        "leaks": leaks,
    }
    return modules[part].cases()


def _announced(part: str, case: Case) -> Outcome:
    """Judge a case and print its line; one that ends with an error is wrong."""
    began = time.monotonic()
    try:
        outcome = case.judge()
    except Exception as error:  # whatever it is, the other cases are still worth judging
        outcome = Outcome(f"{type(error).__name__}: {error}", right=False)
    word = {True: "right", False: "WRONG", None: "open"}[outcome.right]
    _say(
        f"{word:5}  {part:{_WIDTH}}  {case.planted} | expected: {case.expected} | found: {outcome.found} | "
        f"{time.monotonic() - began:.1f} s"
    )
    return outcome


def _versions() -> str:
    import platform
    from importlib.metadata import version

    names = ("torch", "diffusers", "numpy", "scipy")
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cli.run(main)
