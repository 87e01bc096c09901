"""The section on planted mismatches: how many of the captions put on wrong images the cut dropped."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page

_SCORED = "clip_similarity.notna()"
_CUT = f"rule == {SIMILARITY!r}"


def section(found: dict[str, Any]) -> Markup:
    """The table of ``figures.planted`` and the share of planted mismatches before and after the cut."""
    wrong, true = f"{_SCORED} and planted_mismatch", f"{_SCORED} and not planted_mismatch"
    rows = [
        [
            "planted mismatches dropped by the cut",
            counts.pairs(found["mismatches_removed"], f"{wrong} and {_CUT}"),
            counts.pairs(found["mismatches"], wrong),
            _share(found["mismatches_removed"], found["mismatches"]),
        ],
        [
            "true pairs kept by the cut",
            counts.pairs(found["true_pairs_kept"], f"{true} and not ({_CUT})"),
            counts.pairs(found["true_pairs"], true),
            _share(found["true_pairs_kept"], found["true_pairs"]),
        ],
    ]
    before, after = found["mismatch_share_before"], found["mismatch_share_after"]
    change = (
        "Planted mismatches (captions put on wrong images on purpose) among the scored pairs: "
        f"{before:.1%} before the cut, {after or 0:.1%} after."
    )
    return counts.table(["", "pairs", "of", "share"], rows) + page.paragraph(change)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"
