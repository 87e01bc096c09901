"""``reconsider.csv``: the training pairs that an evaluation suggests to look at again, and why.

An evaluation writes it and nothing reads it unasked: ``python -m curate.remove RUN --from FILE`` takes out
the pairs of the rows that somebody left in it, and ``python -m curate.explain`` repeats the reasons.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from curate.run import folder
from curate.run.files import write_text
from curate.run.joined import curations_of
from curate.run.next_command import named
from curate.run.printable import from_spreadsheet_cell, spreadsheet_cell
from curate.run.schema import UserError

FILE = "reconsider.csv"  # in the folder of an evaluation
LONGEST_CAPTION = 1_000  # characters that are written; the ledger has the rest

_KEY, _REASON = "key", "reason"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A training pair whose caption does not help the model.

    Attributes:
        key: the shard's key of the picture.
        caption: its first one.
        reason: in words, for whoever looks at the pair.
        caption_gain: how much less the loss is with this caption than with none, a share of the mean
            loss; about zero or less where the caption does not belong to the picture.
        typical_gain: the median of some training pictures that were chosen by hash.
        similarity: the curation's CLIP similarity of picture and caption; None where it has none.
    """

    key: str
    caption: str
    reason: str
    caption_gain: float
    typical_gain: float
    similarity: float | None


COLUMNS = tuple(field.name for field in fields(Doubt))


def write(path: Path, doubts: Sequence[Doubt]) -> None:
    """Write the list, atomically; no cell is a formula to a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(doubt, name)) for name in COLUMNS] for doubt in doubts)
    write_text(path, stream.getvalue())


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return spreadsheet_cell(value[:LONGEST_CAPTION])
    return "" if value is None else f"{value:.6g}"


def read_keys(path: Path) -> set[str]:
    """The keys of a table with a column ``key``, such as this file after somebody went through it.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no such table, or names no pair; says in which line.
    """
    found = set(_reasons(path))
    if not found:
        raise UserError(f"{path} lists no pair, so there is nothing to do")
    return found


def reasons(curate_dir: Path, keys: Iterable[str]) -> dict[str, list[str]]:
    """What the evaluations of trainings on a curation say of each of ``keys``: a text for each that lists it.

    An evaluation whose list cannot be read says so of all of them.
    """
    found: dict[str, list[str]] = {key: [] for key in keys}
    for path in sorted(curate_dir.parent.parent.glob(f"*/evaluate/{FILE}")):
        run_dir = path.parents[1]
        stands_on = curations_of(folder.curate_dir_of(run_dir))
        if curate_dir.resolve() not in [each.resolve() for each in stands_on]:
            continue
        try:
            listed = _reasons(path)
        except (UserError, OSError) as error:
            listed = dict.fromkeys(found, f"unknown: {error}")
        for key in listed.keys() & found.keys():
            found[key].append(f"{listed[key] or 'listed'} (evaluation of {named(run_dir)})")
    return found


def _reasons(path: Path) -> dict[str, str]:
    """The reason of each key, "" where the table gives none."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}; python -m evaluate writes {FILE} into the folder evaluate of a run"
        )
    try:
        lines = path.read_text("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}; save it as CSV in UTF-8") from error
    try:
        return dict(_rows(path, lines))
    except csv.Error as error:
        raise UserError(f"{path} is no CSV table: {error}") from error


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and reason of each row; spreadsheets of some languages write semicolons for commas."""
    head = next((line for line in lines if line.strip()), "")
    other = (mark for mark in ";\t" if mark in head and "," not in head)
    reader = csv.DictReader(lines, delimiter=next(other, ","), strict=True)
    columns = reader.fieldnames or []
    if _KEY not in columns:
        shown = ", ".join(map(repr, columns[:10])) or "nothing"
        raise UserError(f"{path}, line 1: no column {_KEY!r}; it names {shown}")
    for row in reader:
        key = from_spreadsheet_cell((row[_KEY] or "").strip())
        if not key:
            raise UserError(f"{path}, line {reader.line_num}: the key is empty")
        yield key, from_spreadsheet_cell(row.get(_REASON) or "")
