"""Damaged parquet files: arrow's exceptions as an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.run.schema import UserError


@contextmanager
def reporting_damage(path: Path, remedy: str | Callable[[], str]) -> Iterator[None]:
    """Turn what arrow raises for a damaged ``path`` into a ``UserError``; ``remedy`` says what to do.

    A function is only called if there is damage.
    """
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        said = " ".join(str(error).split())  # arrow's has several lines
        advice = remedy if isinstance(remedy, str) else remedy()
        raise UserError(f"{path} is damaged ({said}); {advice}") from error


def is_damage(error: Exception) -> bool:
    """Whether the file's bytes are damaged: a footer, a page, a name in the footer.

    Errors of the system (they have a number) and lack of memory are not.
    """
    import pyarrow as pa

    said_by_arrow = isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError))
    refused = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
    return said_by_arrow and not refused
