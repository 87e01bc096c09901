"""``dataset.caption`` and ``dataset.trigger``: a caption for images without one, and a word in front of all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from curate.readers.candidate import Candidate, clean_caption
from curate.readers.scrub import COLUMN
from curate.readers.source import Source


def word(source: Source, caption: str | None, trigger: str | None) -> Source:
    """``source`` with these captions; where one changed, ``COLUMN`` holds what was read, as a JSON list.

    Args:
        source: to read.
        caption: of images that have none, or empty ones only.
        trigger: is put in front of captions that do not have it as a word, with a comma, as kohya's
            scripts have it. It alone is no caption.
    """
    return replace(source, candidates=lambda: _worded(source.candidates(), caption, trigger))


def _worded(
    candidates: Iterator[Candidate], caption: str | None, trigger: str | None
) -> Iterator[Candidate]:
    given = clean_caption(caption or "")
    for candidate in candidates:
        captions = candidate.captions
        if given and not any(map(clean_caption, captions)):
            captions = (given,)
        if trigger:
            captions = tuple(_with(trigger, each) for each in captions)
        if captions == candidate.captions:
            yield candidate
            continue
        as_read = json.dumps(candidate.captions, ensure_ascii=False)
        columns = {COLUMN: as_read, **candidate.columns}  # scrubbing may have noted it
        yield replace(candidate, captions=captions, columns=columns)


def _with(trigger: str, caption: str) -> str:
    """
    >>> _with("ohwx", "a dog")
    'ohwx, a dog'
    >>> _with("ohwx", "a photo of ohwx dog")
    'a photo of ohwx dog'
    """
    has_it = re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE)
    return caption if has_it or not caption.strip() else f"{trigger}, {caption}"
