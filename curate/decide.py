"""Stage 2: verdict and reason for each pair from its annotations; no image, no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate import calibrate, duplicates, split
from curate.annotate import EMBEDDINGS
from curate.config import SplitConfig
from curate.filters.config import FiltersConfig
from curate.filters.rules import rules
from curate.ledger import DROPPED, KEPT, UNREADABLE

_INTERNAL = ("has_caption", "pixels", "error")  # annotations that the ledger says in other words

UNCALIBRATED = "no image has a caption of another to be compared with, nothing to calibrate on"


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
    null: calibrate.Null

    def separation(self) -> float | None:
        """AUC of the pairs as given against shuffled ones; see `calibrate.Null.separation`."""
        return self.null.separation(self.ledger["clip_similarity"].dropna().to_numpy())


def load_annotations(parts: list[Path]) -> pd.DataFrame:
    """All parts as one frame, embeddings included, in input order."""
    tables = [pq.read_table(path) for path in parts]
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def decide(annotations: pd.DataFrame, filters: FiltersConfig, sides: SplitConfig) -> Verdicts:
    """Apply the rules in order; the first that a pair fails is its reason."""
    pairs = annotations.assign(duplicate_group=duplicates.groups(annotations))
    null = calibrate.shuffled(pairs)
    cut, cut_by = _cut(filters, null)
    reason = pairs["error"].where(pairs["error"] == "", "unreadable: " + pairs["error"])
    status = reason.map(lambda text: UNREADABLE if text else KEPT)
    steps = [(UNREADABLE, int((status == UNREADABLE).sum()))]
    left = pairs.drop(columns=list(EMBEDDINGS))[status == KEPT]
    for rule in rules(filters, cut):
        why = rule.reasons(left)
        taken = why[why != ""]
        reason.loc[taken.index] = taken
        status.loc[taken.index] = DROPPED
        steps.append((rule.name, len(taken)))
        left = left.drop(taken.index)
    ledger = pairs.drop(columns=[*EMBEDDINGS, *_INTERNAL]).assign(
        kept=status == KEPT, reason=reason, status=status, split=_split(left, sides)
    )
    ledger["split"] = ledger["split"].fillna("")
    if cut is None and filters.clip_similarity.fraction is not None and len(left):
        cut = float(left["clip_similarity"].min())
    return Verdicts(ledger, steps, cut, cut_by, null)


def _cut(filters: FiltersConfig, null: calibrate.Null) -> tuple[float | None, str]:
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
