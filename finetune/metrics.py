"""``metrics.jsonl``: one JSON object a line, cut back to the last checkpoint when a run is resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from curate.run.files import naming, write_text
from curate.run.tracking import Point


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line, and return when it is on disk."""
    with naming(path), path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines, without a last one that was cut short when the process was killed.

    Damaged ones, which cannot be read, are left out.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = map(_record, lines[:-1])  # the last one is empty, or cut short
    return [record for record in records if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def points(path: Path) -> list[Point]:
    """Step and values of every line, for trackers."""
    return [point(record) for record in read(path)]


def point(record: dict[str, Any]) -> Point:
    """Of one line; ``samples_seen``, which two lines of a step have, is its step by another measure."""
    position = ("step", "samples_seen")
    return record["step"], {name: value for name, value in record.items() if name not in position}


def truncate(path: Path, step: int) -> None:
    """Remove the lines after update ``step``, which training will write again."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
