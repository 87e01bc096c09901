"""What changed in the data since the run that was promoted then, as sections of a page: from ``curate.diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.diff import STAGE
from curate.report.diff.results import FILE, load
from curate.run.folder import beside

if TYPE_CHECKING:
    from curate.report.page import Section

_ROOM_BYTES = 3_000_000  # for thumbnails, of a page that shows more than these


def page_of(run_dir: Path, before: Path) -> Path:
    """The report of the comparison of a run with an earlier one, which may not be there."""
    return run_dir / STAGE / beside(run_dir, before) / "report.html"


def embedded(run_dir: Path, before: Path, dataset: str = "") -> list[Section]:
    """The sections of the comparison of a run with an earlier one; none where the two were not compared.

    Args:
        run_dir, before: of the runs that hold the curations.
        dataset: whose curations these are, where there are several.

    Raises:
        UserError: a file of the comparison is damaged.
    """
    path = page_of(run_dir, before).with_name(FILE)
    if not path.is_file():
        return []
    from curate.report.diff import pictures, sections
    from curate.report.page import Section

    found = load(path)
    shown = pictures.pictures(found, before / "curate", run_dir / "curate", _ROOM_BYTES)
    title, prefix = "Data", sections.PREFIX
    if dataset:
        title, prefix = f"Data of {dataset}", f"{prefix}-{dataset}"
    return [
        Section(f"{title}: {each.title[:1].lower()}{each.title[1:]}", each.anchor, each.body)
        for each in sections.sections(found, shown, prefix)
    ]
