"""Of a run; replaced when it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def of(run_dir: Path) -> dict[str, Any]:
    """Nothing yet."""
    return {}
