"""Example pairs as thumbnails with captions, within a byte limit for the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from markupsafe import Markup

from curate.measures.decode import UnreadableImage, decode
from curate.report import page
from curate.run.removals import REASON

THUMBNAIL_PX = 128
ROOM_BYTES = 3_500_000  # all thumbnails of a report, which must stay under 5 MB


def verdict(row: dict[Any, Any]) -> str:
    """Whether a pair was kept, or why it was dropped."""
    return "kept" if row["kept"] else row["reason"]


class Pictures:
    """Draws pairs with thumbnails; loads only the images it shows, each once, and none that was removed."""

    def __init__(self, load: Callable[[str], bytes], room_bytes: int = ROOM_BYTES) -> None:
        self._load = load
        self._room = room_bytes
        self._made: dict[str, str | UnreadableImage] = {}

    def sheet(
        self, pairs: pd.DataFrame, status: Callable[[dict[Any, Any]], str] = verdict
    ) -> Markup:
        """A grid of the pairs in their order; ``status`` gives the outcome of a pair in a few words."""
        return page.sheet(self._card(row, status(row)) for row in pairs.to_dict("records"))

    def _card(self, row: dict[Any, Any], status: str) -> Markup:
        text = self._text(row, status)
        if row.get("rule") == REASON:
            return page.figure(Markup('<p class="note">removed: not shown</p>'), text, "")
        found = self._thumbnail(row["location"])
        if isinstance(found, UnreadableImage):
            return page.figure(Markup("<p>{}</p>").format(page.clean(found.reason)), text, "")
        if len(found) > self._room:
            return page.figure(Markup('<p class="note">left out: page size limit</p>'), text, "")
        self._room -= len(found)
        return page.figure(found, text, row["caption"])

    def _thumbnail(self, location: str) -> str | UnreadableImage:
        if location not in self._made:
            try:
                made = page.thumbnail(decode(self._load(location)), THUMBNAIL_PX)
            except UnreadableImage as error:
                made = error
            self._made[location] = made
        return self._made[location]

    def _text(self, row: dict[Any, Any], status: str) -> Markup:
        similarity = row["clip_similarity"]
        text = Markup("<b>{}</b> {}").format(
            "–" if pd.isna(similarity) else f"{similarity:.3f}", page.quote(row["caption"], 120)
        )
        if row.get("planted_mismatch"):
            truth = page.quote(str(row["true_caption"]))
            text += Markup("<br>{} true caption: {}").format(page.badge("bad", "planted"), truth)
        return text + Markup('<br><span class="subtitle">{} · {}</span>').format(
            page.quote(row["key"], 60), page.clean(page.short_numbers(status), 80)
        )
