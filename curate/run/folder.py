"""Which runs there are, and which of them a command is about: the argument RUN, or ``run.name``."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from curate.run import joined
from curate.run.config import RunFolder
from curate.run.next_command import COMMANDS, run_arguments
from curate.run.overrides import key_of, typed
from curate.run.provenance import curate_command, read_config
from curate.run.schema import UserError

EXIT_CODES = "exit codes: 0 done, 2 wrong input, 70 the program failed, 130 interrupted"
_MOST_LISTED = 20
_LONGEST_NAME = 120  # of a folder; file systems take 255 bytes


@dataclass(frozen=True)
class Kind:
    """Runs that went as far as a command needs.

    Attributes:
        word: what they are called.
        stage: the folder that they have.
        marker: what is in it when they are ready, as a glob.
    """

    word: str
    stage: str
    marker: str

    def of(self, root: Path) -> list[str]:
        """The names of those below ``root``, sorted."""
        found = root.glob(f"*/{self.stage}/{self.marker}")
        return sorted({path.relative_to(root).parts[0] for path in found})

    def listed(self, root: Path) -> str:
        """The same as a sentence for a message."""
        names = self.of(root)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        shown = f"{', '.join(names[:_MOST_LISTED])}{more}"
        return f"{root} holds {shown}" if names else f"{root} holds no {self.word} run"


CURATED = Kind("curated", "curate", "manifest.json")
TRAINED = Kind("trained", "finetune", "checkpoints/step-*")
_FIRST = {
    CURATED: f"{COMMANDS['curate']} dataset=folder dataset.root=FOLDER run.name=NAME",
    TRAINED: f"{COMMANDS['train']} run.name=NAME",
}


def settle(run: RunFolder, kind: Kind, section: str) -> None:
    """Give a run without a name that of the only run there is, and say so.

    Args:
        run: of the configuration; changed in place.
        kind: of the runs that the command takes.
        section: of the command, see ``next_command.COMMANDS``.

    Raises:
        UserError: there is none, or there are several; lists the lines to type.
    """
    if run.name is not None:
        return
    root = Path(run.root)
    run.name = only(root, kind, section)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"run     {run.folder}, the only {kind.word} run there")


def only(root: Path, kind: Kind, section: str) -> str:
    """The name of the only run of a kind below ``root``.

    Raises:
        UserError: as `settle`.
    """
    names = kind.of(root)
    if len(names) == 1:
        return names[0]
    if not names:
        below = "" if root == Path("runs") else f" {shlex.quote(f'run.root={root}')}"
        raise UserError(f"{kind.listed(root)}; type first: {_FIRST[kind]}{below}")
    given = [text for text in typed() or [] if key_of(text) not in ("run.name", "run.root")]
    start = " ".join([COMMANDS[section], *map(shlex.quote, given)])
    lines = [f"  {start} {run_arguments(root / name)}" for name in names[:_MOST_LISTED]]
    more = [f"  and {len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
    raise UserError(
        "\n".join([f"{root} holds {len(names)} {kind.word} runs; type one of", *lines, *more])
    )


def refuse_unknown(run_dir: Path, kind: Kind, key: str = "run.name") -> None:
    """Refuse a run that is not of a kind, where others are: its name may be mistyped.

    Raises:
        UserError: names those that there are; none is raised where there are none.
    """
    names = kind.of(run_dir.parent)
    if not names or run_dir.name in names:
        return
    near = get_close_matches(run_dir.name, names, n=1)
    raise UserError(
        f"{key}={run_dir.name} is no {kind.word} run; {kind.listed(run_dir.parent)}. Type "
        f"{shlex.quote(f'{key}={near[0] if near else names[0]}')}, or first: {_makes(run_dir, kind)}"
    )


def _makes(run_dir: Path, kind: Kind) -> str:
    """The command that makes a run one of a kind."""
    if kind == CURATED:
        return curate_command(run_dir)
    curation = curate_dir_of(run_dir)
    data = "" if curation == run_dir / CURATED.stage else f" {joined.option(curation)}"
    return f"{COMMANDS['train']} {run_arguments(run_dir)}{data}"


def parser(
    command: str, does: str, exit_codes: str = EXIT_CODES, package: str = "curate"
) -> ArgumentParser:
    """A parser for ``python -m <package>.<command> RUN ...``."""
    found = ArgumentParser(
        prog=f"python -m {package}.{command}",
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
    """The folder of a run's curation, see `stage_dir`.

    Raises:
        FileNotFoundError: there is none, neither at ``run`` nor at ``runs/run``.
    """
    return stage_dir(run, CURATED)


def curate_dir_of(run_dir: Path) -> Path:
    """The curation that a run's training stands on (``data.run``); the run's own where it names none.

    Of a training on several (``data.runs``) the folder that joins them, see ``curate.run.joined``.
    """
    data = read_config(run_dir / TRAINED.stage / "config.yaml").get("data")
    if isinstance(data, dict) and data.get("runs"):
        return run_dir / joined.FOLDER
    name = data.get("run") if isinstance(data, dict) else None
    if not name:
        return run_dir / CURATED.stage
    return (run_dir if run_dir.name else run_dir.resolve()).with_name(name) / CURATED.stage


def stage_dir(run: str, kind: Kind) -> Path:
    """The folder that a kind of run has, in the run that is named by its folder or by its name in ``runs/``.

    Raises:
        FileNotFoundError: there is none, neither at ``run`` nor at ``runs/run``.
    """
    given, stage = Path(run).expanduser(), kind.stage
    tried = [given, Path("runs", run), *([given.parent] if given.name == stage else [])]
    for folder in tried:
        if (folder / stage).is_dir():
            return folder / stage
    present = sorted(path.parent.name for path in Path("runs").glob(f"*/{stage}"))
    places = " or ".join(dict.fromkeys(f"{folder}/{stage}" for folder in tried))
    known = f"runs/ holds {', '.join(present)}" if present else "runs/ holds none"
    raise FileNotFoundError(f"{run} is no {kind.word} run: there is no folder {places}; {known}")


def beside(run_dir: Path, *others: Path) -> str:
    """The name of a folder in a run that is about other runs: their names, with a comma between.

    The name of a run below another root has a hash behind it, as has a name cut short.
    """
    root = run_dir.resolve().parent
    names = []
    for other in others:
        real = other.resolve()
        name = other.name or real.name
        names.append(name if real.parent == root else f"{name}-{_short(str(real))}")
    name = ",".join(names)
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}-{_short(name)}"
    return name


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
