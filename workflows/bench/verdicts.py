"""Whether the product's judgement of planted trainings is right: `python -m workflows.bench verdicts`."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.run import cli
from curate.run.files import write_text
from workflows.bench.compare import say
from workflows.bench.planted import ROWS, Found, Planting

COLUMNS = (
    *("verdict", "gate", "kept", "held-out loss, %", "caption fit"),
    *("loss on the base's pictures, %", "copying", "prompt following"),
)
SEEDS = (0, 1, 2)


def run(arguments: Sequence[str] = ()) -> int:
    """Make the planted trainings that are not there yet, print the table and write it; 1 if a row is wrong."""
    parser = ArgumentParser(
        prog="python -m workflows.bench verdicts",
        description="Train planted runs and compare what is said of them with the truth: hours on two cores. "
        "What is finished is not made again; delete FOLDER/ROW-SEED.json to judge a run again.",
    )
    parser.add_argument(
        "rows", metavar="ROW", nargs="*", help=f"of {', '.join(ROWS)}; default: all"
    )
    parser.add_argument("--seeds", metavar="N,N", type=_numbers, default=SEEDS)
    parser.add_argument("--root", type=Path, metavar="FOLDER", default=Path("runs/verdicts"))
    given = parser.parse_args(arguments)
    if unknown := [row for row in given.rows if row not in ROWS]:
        parser.error(f"no row {unknown[0]!r}; choose from: {', '.join(ROWS)}")
    for seed in given.seeds:
        for row in given.rows or ROWS:
            _make(given.root.resolve(), row, seed)
    found = collected(given.root)
    text = table(found)
    write_text(given.root / "verdicts.json", json.dumps(found, indent=1, sort_keys=True) + "\n")
    write_text(given.root / "verdicts.md", text)
    say(text)
    say(f"table   {given.root / 'verdicts.md'}")
    return int(any(each["wrong"] for each in found))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _make(root: Path, row: str, seed: int) -> None:
    """Make one run and store what was found, unless that is there."""
    path = root / f"{row}-{seed}.json"
    if path.is_file():
        return
    say(f"{row}, seed {seed}: {ROWS[row].planted}")
    began = time.monotonic()
    found = ROWS[row].run(Planting(root, seed), row)
    seconds = round(time.monotonic() - began)
    content = {"row": row, "seed": seed, "seconds": seconds, **asdict(found)}
    write_text(path, json.dumps(content, indent=1) + "\n")
    say(f"{row}, seed {seed}: {'; '.join(found.wrong) or 'right'} ({seconds} s)")


def collected(root: Path) -> list[dict[str, Any]]:
    """What was found of all runs below a folder, in the order of the rows and seeds."""
    order = list(ROWS)
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for row in order
        for path in root.glob(f"{row}-[0-9]*.json")
    ]
    return sorted(found, key=lambda each: (order.index(each["row"]), each["seed"]))


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with a line for each run, and below it the sentences of each headline."""
    head = ("planted", "seed", *COLUMNS, "right?")
    lines = [_line(head), _line(["---"] * len(head))]
    for each in found:
        cells = [each["values"].get(name, "–") for name in COLUMNS]
        right = "; ".join(each["wrong"]) or "right"
        lines.append(_line([ROWS[each["row"]].planted, str(each["seed"]), *cells, right]))
    lines.append("")
    for each in found:
        row = ROWS[each["row"]]
        lines.append(
            f"- **{row.planted}**, seed {each['seed']} (expected: {row.expected}). {each['headline']}"
        )
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


__all__ = ["COLUMNS", "Found", "collected", "run", "table"]

if __name__ == "__main__":
    with cli.exit_codes():
        sys.exit(run(sys.argv[1:]))
