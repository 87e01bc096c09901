"""The argument RUN of the commands on a finished run, and the folder that it names."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from curate.run.provenance import curate_command

EXIT_CODES = "exit codes: 0 done, 2 wrong input, 130 interrupted"


def parser(command: str, does: str, exit_codes: str = EXIT_CODES) -> ArgumentParser:
    """A parser for ``python -m curate.<command> RUN ...``."""
    found = ArgumentParser(
        prog=f"python -m curate.{command}",
        description=does,
        epilog=exit_codes,
        formatter_class=RawDescriptionHelpFormatter,
    )
    found.add_argument("run", metavar="RUN", help="a run's folder, or the name of one in runs/")
    return found


def say_if_unfinished(curate_dir: Path) -> None:
    """Warn that an answer may be out of date: a curation was started there and has not finished."""
    if not (curate_dir / "manifest.json").is_file():
        print(
            f"note: {curate_dir.parent} holds no finished curation; this is what the last one left. To "
            f"finish it, type: {curate_command(curate_dir.parent)}",
            file=sys.stderr,
        )


def curate_dir(run: str) -> Path:
    """The folder of a run's curation.

    Raises:
        FileNotFoundError: there is none, neither at ``run`` nor at ``runs/run``.
    """
    given = Path(run).expanduser()
    tried = [given, Path("runs", run), *([given.parent] if given.name == "curate" else [])]
    for folder in tried:
        if (folder / "curate").is_dir():
            return folder / "curate"
    present = sorted(path.parent.name for path in Path("runs").glob("*/curate"))
    places = " or ".join(dict.fromkeys(f"{folder}/curate" for folder in tried))
    known = f"runs/ holds {', '.join(present)}" if present else "runs/ holds none"
    raise FileNotFoundError(f"{run} is no curated run: there is no folder {places}; {known}")
