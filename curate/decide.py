"""Stage 2: verdict and reason for each pair from its annotations; no image, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate import duplicates, embeddings, split
from curate.config import SplitConfig
from curate.filters import captions
from curate.filters.config import FiltersConfig
from curate.filters.rule import Rule
from curate.filters.rules import rules
from curate.ledger import DROPPED, KEPT, UNREADABLE
from curate.null import Null, shuffled

_INTERNAL = ("has_caption", "pixels", "error", "version")  # the ledger says them in other words

UNCALIBRATED = "no image has a caption of another to be compared with, nothing to calibrate on"

Head = Callable[[np.ndarray], np.ndarray]
"""Embeddings (N, D) float32 of unit length => scores (N,) float32."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The outcome for all pairs.

    Attributes:
        ledger: one row per input pair in input order, all columns but ``shard``.
        steps: (rule, pairs it took), in the order of the rules; "unreadable" first.
        cut: the lowest similarity that stays, None where nothing was cut.
        cut_by: the setting that the cut comes from.
        null: similarities of shuffled captions.
    """

    ledger: pd.DataFrame
    steps: list[tuple[str, int]]
    cut: float | None
    cut_by: str
    null: Null

    def separation(self) -> float | None:
        """AUC of the pairs as given against shuffled ones; see `null.Null.separation`."""
        return self.null.separation(self.ledger["clip_similarity"].dropna().to_numpy())


def load_annotations(parts: list[Path], heads: Mapping[str, Head] | None = None) -> pd.DataFrame:
    """All parts as one frame in input order, without the embeddings.

    Args:
        parts: of the annotation folder.
        heads: scores of the images' embeddings to add, by column.
    """
    tables = []
    for path in parts:
        names = [n for n in pq.read_schema(path).names if n not in embeddings.COLUMNS]
        tables.append(pq.read_table(path, columns=names))
    frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    if heads:
        _add_scores(frame, embeddings.Embeddings(parts), heads)
    return frame


def _add_scores(
    frame: pd.DataFrame, embedded: embeddings.Embeddings, heads: Mapping[str, Head]
) -> None:
    """Each image's score on all of its rows; NaN where it has no embedding."""
    first_rows = np.arange(len(frame)) - frame["caption_index"].to_numpy()
    for name in heads:
        frame[name] = np.full(len(frame), np.nan, np.float32)
    for rows, vectors in embedded.image_blocks():
        for name, head in heads.items():
            frame.loc[rows, name] = head(vectors)
    for name in heads:
        frame[name] = frame[name].to_numpy()[first_rows]


def decide(
    pairs: pd.DataFrame,
    embedded: embeddings.Embeddings,
    filters: FiltersConfig,
    sides: SplitConfig,
) -> Verdicts:
    """Apply the rules in order; the first that a pair fails is its reason.

    Args:
        pairs: of ``load_annotations``; rows are numbered from 0.
        embedded: the embeddings of the same parts.
        filters: the rules.
        sides: the shares to hold out.
    """
    pairs = pairs.assign(duplicate_group=duplicates.groups(pairs))
    null = shuffled(pairs, embedded)
    cut, cut_by = _cut(filters, null)
    court = _Court(pairs)
    for rule in [*rules(filters, cut), *captions.rules(filters.captions)]:
        court.apply(rule)
    if filters.duplicates.exact:
        court.drop_copies(duplicates.copies(court.left))
    if cut is None and filters.clip_similarity.fraction is not None and len(court.left):
        cut = float(court.left["clip_similarity"].min())
    ledger = court.ledger().drop(columns=list(_INTERNAL))
    ledger["split"] = _split(court.left, sides).reindex(ledger.index).fillna("")
    return Verdicts(ledger, court.steps, cut, cut_by, null)


class _Court:
    """The pairs that are left, and what became of the others."""

    def __init__(self, pairs: pd.DataFrame) -> None:
        self._pairs = pairs
        self._reasons = [""]
        self._reason = np.zeros(len(pairs), np.int16)  # index into _reasons
        self._keeper = pd.Series("", index=pairs.index, dtype="str")
        unreadable = (pairs["error"] != "").to_numpy()
        for error in pairs.loc[unreadable, "error"].unique():
            self._sentence(f"{UNREADABLE}: {error}", (pairs["error"] == error).to_numpy())
        self._unreadable = unreadable
        self.steps = [(UNREADABLE, int(unreadable.sum()))]
        self.left = pairs[~unreadable]

    def apply(self, rule: Rule) -> None:
        """Drop what ``rule`` marks."""
        self._drop(rule.name, rule.reason, rule.drops(self.left).to_numpy(bool))

    def drop_copies(self, keeper: pd.Series) -> None:
        """Drop the pairs that have a keeper; it is the key of the image that stays instead."""
        copies = keeper[keeper != ""]
        self._keeper[copies.index] = copies
        self._drop("duplicate", "duplicate", (keeper != "").to_numpy())

    def ledger(self) -> pd.DataFrame:
        """All pairs with their verdicts."""
        status = np.where(self._unreadable, UNREADABLE, np.where(self._reason, DROPPED, KEPT))
        return self._pairs.assign(
            kept=self._reason == 0,
            reason=pd.Categorical.from_codes(self._reason, self._reasons).astype("str"),
            status=pd.Series(status, index=self._pairs.index, dtype="str"),
            duplicate_of=self._keeper,
        )

    def _drop(self, name: str, reason: str, drops: np.ndarray) -> None:
        self._sentence(reason, self.left.index[drops])
        self.steps.append((name, int(drops.sum())))
        self.left = self.left[~drops]

    def _sentence(self, reason: str, rows: np.ndarray | pd.Index) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
        self._reason[rows] = self._reasons.index(reason)


def _cut(filters: FiltersConfig, null: Null) -> tuple[float | None, str]:
    """The absolute cut, where there is one, and the setting that it comes from."""
    similarity = filters.clip_similarity
    if similarity.minimum is not None:
        return similarity.minimum, f"minimum={similarity.minimum:g}"
    if similarity.fraction is not None:
        return None, f"fraction={similarity.fraction:g}"
    if similarity.false_keep_rate is not None:
        rate = similarity.false_keep_rate
        cut = null.cut(rate)
        return cut, f"false_keep_rate={rate:g}" + (f": {UNCALIBRATED}" if cut is None else "")
    return None, "no cut"


def _split(kept: pd.DataFrame, sides: SplitConfig) -> pd.Series:
    """The side of each kept pair; images are what is counted."""
    images = kept.drop_duplicates("key").set_index("key")["duplicate_group"]
    return kept["key"].map(split.assign(images, sides))
