"""The command ``python -m curate.diff A B``: what changed in the data between two curations."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from curate.run import checksums, cli, folder, ledger
from curate.run.files import remove_parts, write_text
from curate.run.folder import CURATED, beside
from curate.run.locks import locked
from curate.run.manifest import read_manifest
from curate.run.next_command import named
from curate.run.overrides import is_override, key_of, value_of
from curate.run.removals import read_removals
from curate.run.schema import UserError

STAGE = "diff"
_DOES = """What changed in the data from one curation to another: pairs added, gone and renamed, verdicts and why, captions,
pictures, sides of the split; by rule and by source, with pictures; and the settings that differ.

  python -m curate.diff mine-0001 mine-0002
  python -m curate.diff /my/runs/mine-0001 /my/runs/mine-0002

RUN_A is the earlier one. Writes RUN_B/diff/RUN_A/report.html, diff.json and changes.parquet, a row for each pair that
changed. No model and no picture of the source is needed; those that are at hand are shown."""
_TYPE = "Type: python -m curate.diff RUN_A RUN_B"


def main() -> None:
    """Compare, write the report, and print what changed."""
    parser = ArgumentParser(
        prog="python -m curate.diff",
        description=_DOES,
        epilog=folder.EXIT_CODES.replace(
            "2 wrong input", "2 wrong input, 75 a run is being curated"
        ),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="RUN_A and RUN_B: folders of runs, or names in runs/"
    )
    before, now = _curations(parser.parse_args().runs)
    with ExitStack() as stack:
        for curate_dir in (before, now):
            stack.enter_context(locked(curate_dir, shared=True))
            _refuse_unfinished(curate_dir)
        write(before, now, say=print)


def _curations(given: Sequence[str]) -> tuple[Path, Path]:
    """The folders ``curate`` of the two runs.

    Raises:
        FileNotFoundError: there is no such run.
        UserError: there are not two, or they are the same.
    """
    names = [_name(text) for text in given]
    if len(names) != 2:
        raise UserError(
            f"a comparison takes two runs, not {len(names)}; {CURATED.listed(Path('runs'))}. {_TYPE}"
        )
    before, now = map(_curation, names)
    if before.resolve() == now.resolve():
        raise UserError(
            f"{names[0]} and {names[1]} are the same run; name two different ones. {_TYPE}"
        )
    return before, now


def _name(text: str) -> str:
    """A run as it is named; ``run.name=NAME``, as other commands have it, is refused."""
    if not is_override(text) or Path(text).is_dir() or Path("runs", text).is_dir():
        return text
    value = f" with {value_of(text)} as one of them" if key_of(text) == "run.name" else ""
    raise UserError(
        f"{text} is no run: this command has no keys and takes the runs alone. {_TYPE}{value}"
    )


def _curation(run: str) -> Path:
    try:
        return folder.curate_dir(run)
    except FileNotFoundError:
        try:
            trained = folder.stage_dir(run, folder.TRAINED).parent
        except FileNotFoundError:
            trained = None
        if trained is None:
            raise
        of = folder.curate_dir_of(trained).parent
        raise UserError(
            f"{run} was trained on the curation of another run, {of.name}; compare that: type {named(of)} instead of {run}"
        ) from None


def _refuse_unfinished(curate_dir: Path) -> None:
    """Before anything heavy is imported.

    Raises:
        FileNotFoundError: the curation has not finished.
        UserError: a file is damaged, or a removal was interrupted.
    """
    read_manifest(curate_dir)
    ledger.parts(curate_dir)
    if read_removals(curate_dir).pending:
        raise UserError(
            f"a removal from {curate_dir.parent} was interrupted, so ledger and shards may disagree; type the same "
            "python -m curate.remove again first"
        )


def folder_of(before: Path, now: Path) -> Path:
    """Where the comparison of two curations is, given by their folders ``curate``."""
    return now.parent / STAGE / beside(now.parent, before.parent)


def write(before: Path, now: Path, say: Callable[[str], None]) -> Path:
    """Compare two finished curations, write what was found, and return its folder.

    Args:
        before, now: the folders ``curate``; locked for reading.
        say: prints a line for the user.

    Raises:
        UserError: a file is damaged.
        Busy: another process writes comparisons of the second run.
    """
    import pyarrow as pa

    from curate.report.diff import lines, pictures, results, runs, sections
    from curate.run import parquet

    out = folder_of(before, now)
    with locked(out.parent, "second run"):
        remove_parts(out.parent)
        found = runs.compare_runs(before, now)
        shown = pictures.pictures(found.difference, before, now)
        with checksums.updated(out.parent, (f"{out.name}/",)):
            results.save(found.difference, out / results.FILE)
            table = pa.Table.from_pandas(found.pairs, preserve_index=False)
            parquet.write_table(out / results.TABLE, table)
            write_text(out / "report.html", sections.render(found.difference, shown))
    for line in lines.lines(found.difference):
        say(line)
    say(f"report  {out / 'report.html'}")
    return out


if __name__ == "__main__":
    cli.run(main)
