"""The command ``python -m evaluate.compare A B``: whether one training is better than another."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run import checksums, cli
from curate.run.files import remove_parts, write_text
from curate.run.folder import beside
from curate.run.locks import locked
from curate.run.overrides import expand_home, is_override, key_of, typed, value_of
from curate.run.schema import UserError
from evaluate.judged_runs.judged import JUDGED, Judged, find, open_judged

if TYPE_CHECKING:
    from PIL import Image

    from evaluate.comparison import Comparison

STAGE = "compare"
_DOES = """Compare trainings by the held-out pictures that all of them measured and none was trained on.

Each run has been judged by python -m evaluate, with the same grid and the same sampler. The first is the
reference; each of the others is compared with it, picture by picture. No model is loaded.

  python -m evaluate.compare demo demo-slow
  python -m evaluate.compare demo demo-slow demo-full run.root=/my/runs

writes runs/A/compare/B/report.html and compare.json"""
_EXIT_CODES = (
    "exit codes: 0 compared, 2 the runs cannot be compared, 3 too few pictures in common to decide, "
    "70 the program failed, 75 a run is being judged, 130 interrupted"
)
_ROOT = "run.root"


def main() -> None:
    """Compare, and leave with the exit code."""
    parser = ArgumentParser(
        prog="python -m evaluate.compare",
        description=_DOES,
        epilog=_EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="names of runs, or their folders")
    names, root = _arguments(parser.parse_args(typed()).runs)  # as typed, not as Hydra wants it
    folders = _folders(names, root)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder / JUDGED.stage, shared=True))
        sys.exit(start([open_judged(folder) for folder in folders], say=print))


def _arguments(given: Sequence[str]) -> tuple[list[str], Path]:
    """The runs' names, and the folder of ``run.root=FOLDER``."""
    root = Path("runs")
    names = []
    for text in given:
        if is_override(text) and key_of(text) == _ROOT and value_of(text):
            root = Path(expand_home(value_of(text)))
        else:
            names.append(text)
    for text in names:  # of a sweep, names hold an = too
        if is_override(text) and not (root / text).is_dir() and not Path(text).is_dir():
            raise UserError(
                f"{text} is no run, and there is no key {key_of(text)}; the only key is {_ROOT}=FOLDER. What is compared "
                "follows from how the runs were judged: for other settings, judge them again"
            )
    return names, root


def _folders(names: Sequence[str], root: Path) -> list[Path]:
    if len(names) < 2:
        raise UserError(
            f"a comparison takes two or more runs, not {len(names)}; {JUDGED.listed(root)}. "
            "Type: python -m evaluate.compare A B"
        )
    folders = [find(name, root) for name in names]
    seen: dict[Path, str] = {}
    for name, folder in zip(names, folders, strict=True):
        if (real := folder.resolve()) in seen:
            raise UserError(
                f"{name} and {seen[real]} are the same run; name each run once, such as: "
                f"python -m evaluate.compare {shlex.join(dict.fromkeys([names[0], 'ANOTHER']))}"
            )
        seen[real] = name
    return folders


def start(runs: Sequence[Judged], say: Callable[[str], None]) -> int:
    """Compare, write the page and ``compare.json``, and return the exit code.

    Args:
        runs: the first is the reference.
        say: prints a line for the user.

    Raises:
        UserError: they cannot be compared; says why, and what to type.
        Busy: another process compares these runs.
    """
    from evaluate import comparison

    pictures = comparison.refuse(runs)
    folder = folder_of(runs)
    stage = folder.parent
    with locked(stage, "first run"):
        remove_parts(stage)
        found = comparison.compare(runs, pictures)
        real, drawn = _pictures(runs, found)
        from evaluate.outputs import compare_page

        with checksums.updated(stage, (f"{folder.name}/",)):
            comparison.save(found, folder / "compare.json")
            write_text(folder / "report.html", compare_page.render(found, real, drawn))
    announce(found, folder, say)
    return 0 if found.decidable else cli.EXIT_UNDECIDABLE


def folder_of(runs: Sequence[Judged]) -> Path:
    """Where a comparison goes: ``A/compare/B``, or ``A/compare/B,C``; see ``folder.beside``."""
    first = runs[0].run_dir
    return first / STAGE / beside(first, *(run.run_dir for run in runs[1:]))


def _pictures(
    runs: Sequence[Judged], found: Comparison
) -> tuple[dict[str, Image.Image], dict[str, list[Path | None]]]:
    """The pictures that moved most: the held-out ones, and those that each run drew for their captions."""
    from curate.measures.decode import decode
    from curate.pack.sample import read_shard
    from curate.run.manifest import intact

    keys = {moved.key for pair in found.pairs for moved in pair.moved}
    first = runs[0]
    real = {
        sample.key: decode(sample.image)
        for shard in first.manifest.shards_of("val")
        for sample in read_shard(intact(first.curate_dir, shard))
        if sample.key in keys
    }
    return real, {key: [run.drawn(key) for run in runs] for key in sorted(keys)}


def announce(found: Comparison, folder: Path, say: Callable[[str], None]) -> None:
    """Each metric of each pair, and where the page is, in a line each."""
    from evaluate.comparison import description
    from evaluate.outputs.compare_page import difference, probability

    names = [side.name for side in found.runs]
    say(
        f"compare {', '.join(names[1:])} with {names[0]}: {found.pictures:,} held-out pictures ({found.on}) in "
        f"{found.groups:,} groups in common"
    )
    for pair in found.pairs:
        say(f"result  {pair.other}: {pair.sentence}")
        for line in pair.lines:
            title = description(line.metric).title
            if line.difference.value is None:
                say(f"missing {title}: not measured, {line.difference.reason}")
                continue
            why = f"; {line.why}" if line.why else ""
            say(
                f"metric  {line.word:19} {title}: {difference(line)} (p {probability(line.corrected)}, corrected{why})"
            )
    if not found.decidable:
        say("result  not decidable: too few groups of pictures in common")
    say(f"report  {folder / 'report.html'}")


if __name__ == "__main__":
    cli.run(main)
