"""Decide: a verdict and a reason for each pair, from its annotations alone; no image, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.annotate.frame import load_annotations
from curate.annotate.spec import AnnotationSpec
from curate.clip.config import HeadConfig
from curate.clip.heads import load_head
from curate.decide import duplicates, leaks, siblings, split
from curate.decide.config import SplitConfig
from curate.decide.cut import threshold_of
from curate.decide.frozen import Frozen, HeldOutAgain
from curate.decide.leaks import Leaks
from curate.decide.rule_runner import RuleRunner
from curate.decide.shuffled_captions import Null, shuffled
from curate.filters import companions as companion_rules
from curate.filters.config import FiltersConfig
from curate.filters.rule import Rule
from curate.filters.rules import rules
from curate.filters.similarity import NAME as SIMILARITY
from curate.run import companions, memory
from curate.run.ledger import HELD_OUT_BY
from curate.run.removals import REASON, Removals

# Not in the ledger, or there in other words.
_INTERNAL = ("has_caption", "pixels_sha256", "thumbnail", "error", "version", companions.ERROR)

Head = Callable[[np.ndarray], np.ndarray]
"""Embeddings (N, D) float32 of unit length => scores (N,) float32."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The outcome for all pairs.

    Attributes:
        ledger: one row per input pair in input order, all columns but ``shard``.
        steps: (rule, pairs it dropped), in the order of the rules; "unreadable" first.
        cut: the lowest similarity that the rule on similarity keeps, None where there is no such rule.
        cut_by: the provenance of the cut: the setting that it comes from.
        null: similarities of shuffled captions.
        leaks: siblings that are left across the sides.
        loosened: see ``siblings.Siblings``.
        held_out_again: what became of the pictures of ``split.held_out``; None where it names no table.
    """

    ledger: pd.DataFrame
    steps: list[tuple[str, int]]
    cut: float | None
    cut_by: str
    null: Null
    leaks: Leaks = field(default_factory=Leaks)
    loosened: int = 0
    held_out_again: HeldOutAgain | None = None

    def separation(self) -> float | None:
        """AUC of the pairs as given against shuffled ones; see `shuffled_captions.Null.separation`."""
        return self.null.separation(self.ledger["clip_similarity"].dropna().to_numpy())


def judge(
    parts: list[Path],
    spec: AnnotationSpec,
    heads: Mapping[str, HeadConfig],
    filters: FiltersConfig,
    sides: SplitConfig,
    removals: Removals,
    held_out: pd.DataFrame | None = None,
) -> Verdicts:
    """The verdicts on all pairs of ``parts``.

    Args:
        parts: of the annotations, in input order.
        spec: what was measured; columns beyond it are left out.
        heads: small models on the embeddings, by name; each fills the column ``head_<name>``.
        filters: the rules.
        sides: the shares to hold out.
        removals: what was removed from this run for good; dropped before any rule.
        held_out: the table that ``sides.held_out`` names, see ``held_out.named_in``; None for none.

    Raises:
        UserError: a head cannot be read, or belongs to another CLIP.
    """
    embedded = Embeddings(parts)
    loaded = {f"head_{name}": load_head(head) for name, head in heads.items()}
    pairs = load_annotations(parts, spec)
    memory.give_back()  # the reading of many small parts leaves as much behind as it returns
    pairs = pairs.assign(**_scores(pairs, embedded, loaded))
    return decide(pairs, embedded, filters, sides, removals, held_out)


def _scores(
    pairs: pd.DataFrame, embedded: Embeddings, heads: Mapping[str, Head]
) -> dict[str, np.ndarray]:
    """The heads' scores by column, (N,): an image's on all of its rows; NaN if it was not measured."""
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
    held_out: pd.DataFrame | None = None,
) -> Verdicts:
    """Apply the rules in order; the first one that drops a pair is its reason.

    Args:
        pairs: of ``load_annotations``; rows are numbered from 0.
        embedded: the embeddings of the same parts.
        filters: the rules.
        sides: the shares to hold out.
        removals: what was removed from this run for good; dropped before any rule.
        held_out: pictures that stay on their side; None for none.
    """
    copies = duplicates.groups(pairs, sides, filters.duplicates, embedded)
    found = siblings.find(pairs, copies, embedded)
    groups = found.groups if sides.siblings else copies
    pairs = pairs.assign(duplicate_group=groups, copy_group=copies)
    frozen = None if held_out is None else Frozen.find(pairs, held_out)
    null = shuffled(pairs, embedded)
    threshold = threshold_of(
        filters.clip_similarity, null, pairs["clip_similarity"].dropna().to_numpy()
    )
    runner = RuleRunner(pairs)
    if removals.records:
        removed = removals.drops(pairs)
        runner.apply(Rule(REASON, REASON, lambda left: removed[left.index]))
    for rule in [*companion_rules.rules(pairs), *rules(filters, threshold.value)]:
        runner.apply(rule)
    runner.drop_copies(duplicates.copies(runner.left, filters.duplicates, embedded))
    ledger = runner.ledger().drop(columns=list(_INTERNAL), errors="ignore")
    ledger["split"] = _split(runner.left, sides, frozen).reindex(ledger.index).fillna("")
    if frozen is not None:
        ledger[HELD_OUT_BY] = frozen.by(ledger["key"])
    return Verdicts(
        ledger,
        runner.steps,
        runner.cuts.get(SIMILARITY),
        threshold.provenance,
        null,
        leaks.measure(ledger, embedded, found.level),
        found.loosened if sides.siblings else 0,
        None if frozen is None else frozen.outcome(ledger),
    )


def _split(kept: pd.DataFrame, sides: SplitConfig, frozen: Frozen | None) -> pd.Series:
    """The side of each kept pair; shares are counted in images."""
    images = kept.drop_duplicates("key").set_index("key")["duplicate_group"]
    stay = None if frozen is None else frozen.sides(images.index)
    return kept["key"].map(split.assign(images, sides, stay))
