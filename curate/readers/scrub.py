"""``dataset.scrub_contacts``: remove URLs, e-mail addresses and telephone numbers from captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from curate.readers.candidate import Candidate
from curate.readers.source import Source

COLUMN = "captions_as_read"


def scrub(source: Source) -> Source:
    """``source`` with scrubbed captions; where one changed, `COLUMN` holds the originals as a JSON list."""
    return replace(source, candidates=lambda: _scrubbed(source.candidates()))


def _scrubbed(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    from curate.filters.contacts import scrub_contacts  # imports pyarrow

    for candidate in candidates:
        captions = tuple(map(scrub_contacts, candidate.captions))
        if captions == candidate.captions:
            yield candidate
            continue
        as_read = json.dumps(candidate.captions, ensure_ascii=False)
        yield replace(candidate, captions=captions, columns={**candidate.columns, COLUMN: as_read})
