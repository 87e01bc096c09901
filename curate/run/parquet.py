"""Parquet files whose bytes are no longer what was written: what arrow raises, said as an error to act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.run.cli import UserError


@contextmanager
def reporting_damage(path: Path, remedy: str | Callable[[], str]) -> Iterator[None]:
    """Raise ``UserError`` for what arrow says of a damaged ``path``; ``remedy`` says what to do.

    A function is only called where there is damage.
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
    """Whether the bytes are to blame: a footer, a page, a name in the footer.

    Not so what the system refused, whose errors have a number, or had no memory for.
    """
    import pyarrow as pa

    said_by_arrow = isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError))
    refused = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
    return said_by_arrow and not refused
