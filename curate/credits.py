"""The command ``python -m curate.credits``: whose the kept pictures are, and under which licences."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from curate.report import licence
from curate.run import cli, folder, ledger
from curate.run.files import write_text
from curate.run.printable import one_line, spreadsheet_cell
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

LINKS = ("licence_url", "license_url", "url", "flickr_url", "coco_url", "page_url")
NAMES = ("title", "author", "attribution", "credit", "user", "username", "source_name")
NOT_STATED = "not stated"

_MARKUP = re.compile(r"([\\`*_\[\]<>|#])")
_IN_ADDRESSES = "%/:?=&#+,;@~!$()*"  # characters that need no escape there


def main() -> None:
    """Print the credits, or write them to a file."""
    parser = folder.parser(
        "credits", "Attribution and licences of all kept pictures, from what their source offers."
    )
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of the terminal")
    arguments = parser.parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    folder.say_if_unfinished(curate_dir)
    table = credited(curate_dir)
    text = as_csv(table) if arguments.format == "csv" else as_markdown(table)
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.output, text)
    if arguments.format == "csv" or arguments.output is not None:
        counts = [f"{count} {one_line(name)}" for name, count in licences(table).items()]
        print(f"{len(table)} pictures: {'; '.join(counts)}", file=sys.stderr)


def credited(curate_dir: Path) -> pd.DataFrame:
    """One row for each kept picture: ``key, source, licence`` and the columns that name or link its owner.

    Empty columns are left out; a licence that the source does not state is "not stated".

    Raises:
        FileNotFoundError: the run has no ledger.
        UserError: nothing is kept.
    """
    asked = ["key", "source", *licence.COLUMNS, *NAMES, *LINKS]
    table = ledger.read(curate_dir, asked, [("kept", "==", True)]).drop_duplicates("key")
    if not len(table):
        raise UserError(f"{curate_dir.parent} keeps no pictures, so there is nobody to credit")
    stated = licence.licence_of(table)
    rest = [name for name in asked if name in table and name not in licence.COLUMNS]
    table = table[rest].astype("str").where(table[rest].notna(), "")
    table.insert(2, "licence", stated.where(stated != "", NOT_STATED))
    return table.loc[:, (table != "").any()]


def licences(table: pd.DataFrame) -> dict[str, int]:
    """Pictures by licence, the most frequent first."""
    counts = (
        table["licence"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    )
    return {str(name): int(count) for name, count in counts.items()}


def as_csv(table: pd.DataFrame) -> str:
    """A row for each picture; no cell is a formula to a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(map(spreadsheet_cell, row) for row in table.itertuples(index=False))
    return stream.getvalue()


def as_markdown(table: pd.DataFrame) -> str:
    """Counts by licence, then a row for each picture."""
    counts = [[name, str(count)] for name, count in licences(table).items()]
    pictures = [list(map(str, row)) for row in table.itertuples(index=False)]
    return "\n".join(
        [
            "# Credits",
            "",
            *_grid(["licence", "pictures"], counts),
            "",
            *_grid(list(table.columns), pictures),
            "",
        ]
    )


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(text: str) -> str:
    """Text of foreign data without markup; an address as a link."""
    if text.startswith(("http://", "https://")):
        return f"<{quote(text, safe=_IN_ADDRESSES)}>"
    return one_line(" ".join(_MARKUP.sub(r"\\\1", text).split()))


if __name__ == "__main__":
    cli.run(main)
