"""Stage 2: verdict and reason for each pair from its annotations; no image, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.annotate.frame import load_annotations
from curate.annotate.spec import AnnotationSpec
from curate.clip.config import HeadConfig
from curate.clip.heads import load_head
from curate.decide import duplicates, split
from curate.decide.config import SplitConfig
from curate.decide.shuffled import Null, shuffled
from curate.filters.config import FiltersConfig
from curate.filters.rules import rules
from curate.filters.similarity import NAME as SIMILARITY
from curate.run import memory
from curate.run.ledger import DROPPED, KEPT, UNREADABLE
from curate.run.removals import REASON, Removals

# No rule looks at these, and copying a million strings for each rule takes longer than the rules.
_NOT_JUDGED = ["source", "location", "version", "format", "sha256", "error", "clip_model"]
# The ledger says them in other words, or in none.
_INTERNAL = ("has_caption", "pixels_sha256", "error", "version")

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


def judge(
    parts: list[Path],
    spec: AnnotationSpec,
    heads: Mapping[str, HeadConfig],
    filters: FiltersConfig,
    sides: SplitConfig,
    removals: Removals,
) -> Verdicts:
    """The verdicts on all pairs of ``parts``.

    Args:
        parts: of the annotations, in input order.
        spec: what was measured; columns beyond it are left out.
        heads: small models on the embeddings, by name; each fills the column ``head_<name>``.
        filters: the rules.
        sides: the shares to hold out.
        removals: what has to go whatever the rules say.

    Raises:
        UserError: a head cannot be read, or belongs to another CLIP.
    """
    embedded = Embeddings(parts)
    loaded = {f"head_{name}": load_head(head) for name, head in heads.items()}
    pairs = load_annotations(parts, spec)
    memory.give_back()  # the reading of many small parts leaves as much behind as it returns
    pairs = pairs.assign(**_scores(pairs, embedded, loaded))
    return decide(pairs, embedded, filters, sides, removals)


def _scores(
    pairs: pd.DataFrame, embedded: Embeddings, heads: Mapping[str, Head]
) -> dict[str, np.ndarray]:
    """Each image's scores on all of its rows (N,), by column; NaN where it was not measured."""
    if not heads:
        return {}
    scores = {name: np.full(len(pairs), np.nan, np.float32) for name in heads}
    for rows, vectors in embedded.image_blocks():
        for name, head in heads.items():
            scores[name][rows] = head(vectors)
    first_rows = np.arange(len(pairs)) - pairs["caption_index"].to_numpy()
    unmeasured = (pairs["pixels_sha256"] == "").to_numpy()
    return {
        name: np.where(unmeasured, np.float32("nan"), found[first_rows])
        for name, found in scores.items()
    }


def decide(
    pairs: pd.DataFrame,
    embedded: Embeddings,
    filters: FiltersConfig,
    sides: SplitConfig,
    removals: Removals,
) -> Verdicts:
    """Apply the rules in order; the first that a pair fails is its reason.

    Args:
        pairs: of ``load_annotations``; rows are numbered from 0.
        embedded: the embeddings of the same parts.
        filters: the rules.
        sides: the shares to hold out.
        removals: what has to go whatever the rules say.
    """
    groups = duplicates.groups(pairs, sides, filters.duplicates, embedded)
    pairs = pairs.assign(duplicate_group=groups)
    null = shuffled(pairs, embedded)
    cut, cut_by = _cut(filters, null)
    runner = RuleRunner(pairs)
    if removals.records:
        runner.drop(REASON, REASON, removals.drops(pairs)[runner.left.index])
    for rule in rules(filters, cut):
        runner.drop(rule.name, rule.reason, rule.drops(runner.left))
        if cut is None and rule.name == SIMILARITY and len(runner.left):
            cut = float(runner.left["clip_similarity"].min())  # where the fraction cuts
    runner.drop_copies(duplicates.copies(runner.left, filters.duplicates, embedded))
    ledger = runner.ledger().drop(columns=list(_INTERNAL))
    ledger["split"] = _split(runner.left, sides).reindex(ledger.index).fillna("")
    return Verdicts(ledger, runner.steps, cut, cut_by, null)


class RuleRunner:
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
        judged = pairs.drop(columns=_NOT_JUDGED)
        self.left = judged[~unreadable] if unreadable.any() else judged

    def drop_copies(self, keeper: pd.Series) -> None:
        """Drop the pairs that have a keeper; it is the key of the image that stays instead."""
        copies = keeper[keeper != ""]
        self._keeper[copies.index] = copies
        self.drop("duplicate", "duplicate", keeper != "")

    def ledger(self) -> pd.DataFrame:
        """All pairs with their verdicts."""
        status = np.where(self._unreadable, UNREADABLE, np.where(self._reason, DROPPED, KEPT))
        return self._pairs.assign(
            kept=self._reason == 0,
            reason=pd.Series(
                np.array(self._reasons, object)[self._reason], self._pairs.index, "str"
            ),
            status=pd.Series(status, index=self._pairs.index, dtype="str"),
            duplicate_of=self._keeper,
        )

    def drop(self, name: str, reason: str, marked: pd.Series) -> None:
        """Drop what is marked of those that are left."""
        drops = marked.to_numpy(bool)
        self._sentence(reason, self.left.index[drops])
        self.steps.append((name, int(drops.sum())))
        if drops.any():
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
