"""The section on pictures that were not fetched: why, how many, and whether asking again may help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from curate.measures.not_fetched import PLACE, STATES, TRANSIENT, location_of, state_at
from curate.report import counts, page
from curate.report.counts import among
from curate.run.database import quoted
from curate.run.ledger_table import LedgerTable
from curate.run.next_command import named

_NAMED = 5  # states in a line
_EXAMPLES = 3  # addresses of a state
_LONGEST = 120  # characters of one
ELSEWHERE = f"not location.str.startswith({PLACE!r})"
"""The query for pairs whose picture was not to be fetched, or was fetched."""
UNFETCHED = f"starts_with(location, {quoted(PLACE)})"
"""The condition in SQL for the others."""


def are_in(ledger: LedgerTable) -> bool:
    """Whether pictures of the ledger's pairs were not fetched."""
    return "location" in ledger and ledger.count(UNFETCHED) > 0


def figures(ledger: LedgerTable) -> list[dict[str, Any]]:
    """For each state in which requests ended without a picture, the most frequent first: how many."""
    if not are_in(ledger):
        return []
    total = ledger.images()
    found = ledger.tuples(
        "SELECT location, count(DISTINCT image), count(*) FROM ledger "
        f"WHERE {UNFETCHED} GROUP BY location"
    )
    states = [(state_at(location), images, pairs) for location, images, pairs in found]
    return [
        {
            "state": str(state),
            "text": STATES.get(str(state), str(state)),
            "images": images,
            "pairs": pairs,
            "share": images / total,
            "asked_again": state in TRANSIENT,
        }
        for state, images, pairs in sorted(states, key=lambda each: (-each[1], str(each[0])))
    ]


def line(found: list[dict[str, Any]]) -> str:
    """The figures in a line for the terminal, the most frequent states by name."""
    parts = [f"{each['images']:,} {each['text']}" for each in found[:_NAMED]]
    if rest := sum(each["images"] for each in found[_NAMED:]):
        parts.append(f"{rest:,} for other reasons")
    return f"not fetched: {sum(each['images'] for each in found):,} images ({'; '.join(parts)})"


def section(curate_dir: Path, ledger: LedgerTable, found: list[dict[str, Any]]) -> Markup:
    """A row for each state, with examples of addresses."""
    rows = [
        [
            each["state"],
            each["text"],
            counts.images(each["images"], among("location", [location_of(each["state"])])),
            f"{each['share']:.1%}",
            "yes" if each["asked_again"] else "no",
        ]
        for each in found
    ]
    return Markup("").join(
        [
            page.paragraph(_sentence(curate_dir, found)),
            counts.table(["state", "what it means", "images", "of all", "asked again"], rows),
            page.details("Some of the addresses", _examples(ledger, found)),
        ]
    )


def _sentence(curate_dir: Path, found: list[dict[str, Any]]) -> str:
    total, share = (sum(each[name] for each in found) for name in ("images", "share"))
    again = sum(each["images"] for each in found if each["asked_again"])
    said = f"The pictures of {total:,} images ({share:.1%}) were not fetched."
    if not again:
        return f"{said} None of these failures is one that may pass."
    command = f"python -m curate.retry {named(curate_dir.parent)}"
    return f"{said} {again:,} of these failures may pass; to ask for them again, type: {command}"


def _examples(ledger: LedgerTable, found: list[dict[str, Any]]) -> Markup:
    rows = []
    for each in found:
        first = ledger.tuples(
            f"SELECT min(row) AS first FROM ledger WHERE location = ? GROUP BY image ORDER BY first LIMIT {_EXAMPLES}",
            location_of(each["state"]),
        )
        some = ledger.rows([row for (row,) in first])
        rows += [
            [each["state"], key, page.clean(str(url), _LONGEST)]
            for key, url in zip(some["key"], some["url"], strict=True)
        ]
    return page.table(["state", "key", "address"], rows)
