"""Prompts to draw, from texts and from files in three forms: plain text, tables with tabs, JSON lines."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.run.schema import UserError

LONGEST = 10_000  # characters of a prompt; the tokenizers read 77 tokens
MOST = 100_000  # prompts of one command
_LONGEST_LINE = 1_000_000
_COLUMN = "prompt"  # of a table, in any case, and the key of JSON lines
_FORMS = (
    'plain text, one prompt a line; a table with tabs whose first line names a column "Prompt"; or JSON lines, '
    'each an object with a key "prompt"'
)


@dataclass(frozen=True)
class SourcePrompt:
    """A prompt and where it was read.

    Attributes:
        file: None for one that was typed. line: in that file, from 1; None for one that was typed.
        tags: what the file says of it in short texts, such as PartiPrompts' category or GenEval's tag.
    """

    text: str
    file: str | None = None
    line: int | None = None
    tags: dict[str, str] = field(default_factory=dict)


def gather(typed: Sequence[str], files: Sequence[str], limit: int | None) -> list[SourcePrompt]:
    """All prompts in order, each text once, at most ``limit``.

    Raises:
        UserError: there is none, or one that cannot be drawn; names the file and the line.
        FileNotFoundError: there is no such file.
    """
    found: dict[str, SourcePrompt] = {}
    for number, text in enumerate(typed, 1):
        where = "prompt" if len(typed) == 1 else f"prompt, text {number}"
        found.setdefault(checked := _checked(text, where), SourcePrompt(checked))
    for file in files:
        for prompt in read(Path(file).expanduser()):
            found.setdefault(prompt.text, prompt)
    if not found:
        raise UserError(
            'there is nothing to draw; type prompt="a red fox" or prompt_file=FILE, which is '
            + _FORMS
        )
    chosen = list(found.values())[:limit]
    if len(chosen) > MOST:
        raise UserError(f"{len(chosen)} prompts are more than {MOST}; type limit={MOST} or less")
    return chosen


def read(path: Path) -> list[SourcePrompt]:
    """The prompts of a file, whose form is found out from its content.

    Raises:
        UserError: it is in no known form, or a line of it is wrong; names the line.
        FileNotFoundError: there is no such file.
    """
    if path.is_dir():
        raise UserError(
            f"prompt_file={path} is a folder; name a file in it, or several: [FILE,FILE]"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'prompt_file={path} does not exist. A prompt itself is typed prompt="a red fox"'
        )
    lines = _lines(path)
    first = next((text for _, text in lines), None)
    if first is None:
        raise UserError(f"prompt_file={path} is empty; it holds {_FORMS}")
    if (
        path.suffix.lower() in (".csv", ".json")
        or first.strip() == "["
        or first.startswith(('["', "[{"))
    ):
        raise UserError(
            f"prompt_file={path} is in a form that is not read ({path.suffix or 'a JSON list'}); it must be {_FORMS}"
        )
    if first.startswith("{"):
        found = list(_of_json(path, lines))
    elif "\t" in first:
        found = list(_of_table(path, lines))
    else:
        found = [SourcePrompt(text, str(path), n) for n, text in _of_text(path, lines)]
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not blank; a mark of the byte order is left out."""
    found = []
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number} is not UTF-8; save the file as UTF-8 text. It must be {_FORMS}"
                ) from error
            if len(text) > _LONGEST_LINE:
                raise UserError(
                    f"{path}, line {number} has {len(text)} characters; it must be {_FORMS}"
                )
            if text.strip():
                found.append((number, text))
            if len(found) > 10 * MOST:
                raise UserError(
                    f"{path} has more than {10 * MOST} lines; cut it into smaller files"
                )
    return found


def _of_text(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, text in lines:
        if "\t" in text:
            raise UserError(
                f"{path}, line {number} has a tab, and the first line none: {text[:60]!r}. A table names its columns "
                "in the first line, and plain text has no tabs"
            )
        yield number, _checked(text, f"{path}, line {number}")


def _of_table(path: Path, lines: list[tuple[int, str]]) -> Iterator[SourcePrompt]:
    """PartiPrompts' form: no quoting, columns by name."""
    header = _cells(lines[0][1])
    names = [name.strip().lower() for name in header]
    if names.count(_COLUMN) != 1:
        raise UserError(
            f"{path}, line {lines[0][0]}: a table with tabs needs one column named Prompt in its first line, and this "
            f"one has {', '.join(repr(name[:40]) for name in header[:8])}"
        )
    place = names.index(_COLUMN)
    for number, text in lines[1:]:
        cells = _cells(text)
        where = f"{path}, line {number}"
        if len(cells) > len(header):
            raise UserError(f"{where} has {len(cells)} columns, and the first line {len(header)}")
        if len(cells) <= place or not cells[place].strip():
            raise UserError(f"{where} has no text in the column {header[place]}")
        others = {header[i].strip(): cell for i, cell in enumerate(cells) if i != place}
        yield SourcePrompt(_checked(cells[place], where), str(path), number, _tags(others))


def _cells(text: str) -> list[str]:
    return text.split("\t")


def _of_json(path: Path, lines: list[tuple[int, str]]) -> Iterator[SourcePrompt]:
    """GenEval's form: an object a line."""
    for number, text in lines:
        where = f"{path}, line {number}"
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{where} cannot be read as JSON; each line must be one object"
            ) from error
        if not isinstance(content, dict) or not isinstance(content.get(_COLUMN), str):
            raise UserError(f'{where} is no object with a text under the key "prompt"')
        others = {str(key): value for key, value in content.items() if key != _COLUMN}
        yield SourcePrompt(_checked(content[_COLUMN], where), str(path), number, _tags(others))


def _tags(values: dict[str, Any]) -> dict[str, str]:
    """The short texts among some values."""
    return {
        name: value.strip()
        for name, value in values.items()
        if isinstance(value, str) and 0 < len(value.strip()) <= 200 and not _strange(value)
    }


def _checked(text: str, where: str) -> str:
    """A prompt in one line.

    Raises:
        UserError: it is empty, too long, or holds characters that no text has.
    """
    text = re.sub(r"\r?\n|[\t\u2028\u2029]", " ", text).strip()
    if not text:
        raise UserError(f"{where} is empty; type a text")
    if len(text) > LONGEST:
        raise UserError(f"{where} has {len(text)} characters; at most {LONGEST} make a prompt")
    if found := _strange(text):
        raise UserError(
            f"{where} holds the character U+{ord(found):04X}, which is part of no text. Is this a file of text? It "
            f"must be {_FORMS}"
        )
    return text


def _strange(text: str) -> str:
    """The first control character or half of a surrogate pair; "" if there is none."""
    return next((c for c in text if unicodedata.category(c) in ("Cc", "Cs")), "")
