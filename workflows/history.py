"""The command ``python -m workflows.history``: the retrainings of a series, as a table and a page."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run import cli
from curate.run.printable import one_line
from curate.run.schema import UserError

if TYPE_CHECKING:
    from workflows.retraining.series import Series
    from workflows.retraining.timeline import Retraining, Timeline

_DOES = """\
The retrainings of a series: what is in use, and of each one its data, what its evaluation found and what became
of it. Prints a table and writes the page <root>/<series>-series/history.html with the same and its figures."""

_EXIT_CODES = "exit codes: 0 done, 2 wrong input, 70 the program failed, 130 interrupted"


def main() -> None:
    """Write the page and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.history",
        description=_DOES,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "series", nargs="?", metavar="SERIES", help="its name; may be left out where there is one"
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="the folder of all runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    series = chosen(given.root, given.series)
    from workflows.retraining import history_page, timeline

    found, path = timeline.of(series), history_page.write(series)
    if given.json:
        print(json.dumps(found.as_json() | {"page": str(path)}, indent=2))
        return
    print("\n".join(table(found)))
    print(f"\npage    {path}")


def chosen(root: Path, name: str | None) -> Series:
    """The series of a name, or the only one.

    Raises:
        UserError: there is none, none of this name, or a choice; says what to type.
    """
    from workflows.retraining.series import FOLDER, Series, all_of

    names = [series.name for series in all_of(root)]
    name = None if name is None else Path(name).name.removesuffix(FOLDER)
    if not names:
        raise UserError(
            f"{root} holds no series of retrainings; type first: python -m workflows.retrain experiment=FILE, or "
            "name the folder of your runs with --root"
        )
    if name in names:
        return Series(root, name)
    if name is None and len(names) == 1:
        return Series(root, names[0])
    below = "" if root == Path("runs") else f" --root {shlex.quote(str(root))}"
    near = get_close_matches(name, names, n=1) if name else []
    lines = [f"  python -m workflows.history {shlex.quote(n)}{below}" for n in near or names]
    what = f"{root} holds {len(names)} series" if name is None else f"{root} holds no series {name}"
    raise UserError("\n".join([f"{what}; type{' one of' if len(lines) > 1 else ''}", *lines]))


_HEAD = ("", "run", "date", "kept", "rate", "held-out loss", "prompts", "verdict", "gate", "")
_RIGHT = {3, 4}  # columns of numbers


def table(found: Timeline) -> list[str]:
    """What is in use, a line for each retraining, and what was changed by hand."""
    cells = [_HEAD, *(_cells(each) for each in found.retrainings)]
    lines = [_in_use(found), ""]
    return [*lines, *_aligned(cells), *_by_hand(found)] if found.retrainings else lines[:1]


def _in_use(found: Timeline) -> str:
    current = found.current
    if current is None:
        return f"{one_line(found.name)}: nothing was promoted yet"
    return (
        f"{one_line(found.name)}: in use is {current.run} since {current.since[:16].replace('T', ' ')} UTC "
        f"({current.event}), {one_line(found.export)}"
    )


def _cells(each: Retraining) -> tuple[str, ...]:
    from workflows.retraining.timeline import HELDOUT, PROMPTS

    data, judged = each.data, each.evaluation
    rate = data.get("keep_rate")
    sentence = one_line(each.sentence)
    return (
        "*" if each.is_current else "",
        each.run,
        each.when[:10],
        f"{data['kept']:,}" if data else "–",
        "–" if rate is None else f"{rate:.1%}",
        each.shown(*HELDOUT),
        each.shown(PROMPTS),
        judged.get("verdict", "–").replace("_", " "),
        judged.get("gate", "–"),
        f"{each.outcome}: {sentence}" if sentence else each.outcome,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in _RIGHT else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _by_hand(found: Timeline) -> list[str]:
    lines = [f"{e.when[:10]}  {e.event}: {one_line(e.sentence) or e.run}" for e in found.by_hand]
    return ["", *lines] if lines else []


if __name__ == "__main__":
    cli.run(main)
