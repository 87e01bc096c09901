"""``metrics.jsonl``: one JSON object a line, whole lines only, cut back to the checkpoint on resuming."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from curate.run.files import write_text


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line and make sure that it is on disk before whatever comes next."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a last one that a kill cut short is left out."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [
        json.loads(line) for line in lines[:-1]
    ]  # what follows the last newline is cut or empty


def truncate(path: Path, step: int) -> None:
    """Forget everything after update ``step``; training is about to repeat it."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
