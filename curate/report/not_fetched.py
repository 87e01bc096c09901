"""The section on pictures that were not fetched: why, how many, and whether asking again may help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from curate.measures.not_fetched import PLACE, STATES, TRANSIENT, location_of, state_at
from curate.report import counts, page
from curate.report.counts import among
from curate.run.next_command import named

_NAMED = 5  # states in a line
_EXAMPLES = 3  # addresses of a state
_LONGEST = 120  # characters of one
ELSEWHERE = f"not location.str.startswith({PLACE!r})"
"""The query for pairs whose picture was not to be fetched, or was fetched."""


def are_in(ledger: pd.DataFrame) -> bool:
    """Whether pictures of the ledger's pairs were not fetched."""
    return "location" in ledger and bool(ledger["location"].str.startswith(PLACE).any())


def figures(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """For each state in which requests ended without a picture, the most frequent first: how many."""
    if not are_in(ledger):
        return []
    found = ledger[ledger["location"].str.startswith(PLACE)]
    total = ledger["key"].nunique()
    states = found["location"].map(state_at)
    images = found.drop_duplicates("key")["location"].map(state_at).value_counts()
    return [
        {
            "state": str(state),
            "text": STATES.get(str(state), str(state)),
            "images": int(count),
            "pairs": int((states == state).sum()),
            "share": float(count / total),
            "asked_again": state in TRANSIENT,
        }
        for state, count in sorted(images.items(), key=lambda item: (-item[1], str(item[0])))
    ]


def line(found: list[dict[str, Any]]) -> str:
    """The figures in a line for the terminal, the most frequent states by name."""
    parts = [f"{each['images']:,} {each['text']}" for each in found[:_NAMED]]
    if rest := sum(each["images"] for each in found[_NAMED:]):
        parts.append(f"{rest:,} for other reasons")
    return f"not fetched: {sum(each['images'] for each in found):,} images ({'; '.join(parts)})"


def section(curate_dir: Path, ledger: pd.DataFrame, found: list[dict[str, Any]]) -> Markup:
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


def _examples(ledger: pd.DataFrame, found: list[dict[str, Any]]) -> Markup:
    rows = []
    for each in found:
        some = ledger[ledger["location"] == location_of(each["state"])].drop_duplicates("key")
        some = some.head(_EXAMPLES)
        rows += [
            [each["state"], key, page.clean(str(url), _LONGEST)]
            for key, url in zip(some["key"], some["url"], strict=True)
        ]
    return page.table(["state", "key", "address"], rows)
