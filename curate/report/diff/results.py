"""The schema of ``diff.json``: what every key means, how it is written, read and checked.

``before`` is the first run, ``now`` the second. Pairs are rows of the ledger; pictures are distinct keys.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.run.files import read_json, write_certified
from curate.run.next_command import named
from curate.run.schema import UserError
from curate.run.typed_json import typed

SCHEMA_VERSION = 1
FILE, TABLE = "diff.json", "changes.parquet"

KEPT = "kept"
"""What stands for the rule of a pair that no rule dropped."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How many pairs, and how many pictures they have."""

    pairs: int = 0
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One of the curations.

    Attributes:
        name: of the run. folder: the run's.
        pairs, kept, dropped, unreadable: rows of the ledger; the last three add up to the first.
        pictures: distinct keys. samples: kept pictures by side of the split.
        clip: the CLIP of its similarities, with its fingerprint; "" where the ledger does not say.
        cut: the lowest similarity that was kept; null where there is no cut. cut_by: the setting it comes from.
        shards: digest of its shards.
        missing: columns that the ledger, of an earlier version, lacks; what needs them was not compared.
    """

    name: str
    folder: str
    pairs: int
    pictures: int
    kept: int
    dropped: int
    unreadable: int
    samples: dict[str, int]
    clip: str
    cut: float | None
    cut_by: str
    shards: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """The amounts of all changes. But for ``added`` and ``gone`` they are of pairs that both runs have, and overlap.

    Attributes:
        added, added_kept: pairs that only the second run has, and those of them that it keeps.
        gone, gone_kept: that only the first run has, and those of them that it kept.
        verdict: kept in one run and not in the other. other_rule: dropped in both, by another rule.
        caption: another caption. picture: other bytes under the same key.
        renamed: the same bytes and caption under another key.
        moved: kept in both runs, on another side of the split.
        unheld: pictures, by their bytes, that the first run held out and the second one trains on, under whatever
            key and caption; null where a ledger has no hashes.
    """

    added: Amount
    added_kept: Amount
    gone: Amount
    gone_kept: Amount
    verdict: Amount
    other_rule: Amount
    caption: Amount
    picture: Amount
    renamed: Amount
    moved: Amount
    unheld: int | None


@dataclass(frozen=True, slots=True)
class RuleCount:
    """What a rule did in one run.

    Attributes:
        reached: pairs that no earlier rule dropped; null where the order of the rules is not known.
        dropped: of them.
    """

    reached: int | None
    dropped: int

    @property
    def keep_rate(self) -> float | None:
        """Share of the pairs that the rule let pass; None where none reached it, or that is not known."""
        return 1 - self.dropped / self.reached if self.reached else None


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule in both runs; null where a run does not have it.

    ``now.dropped - before.dropped == added - gone + entered - left``, a null as 0.

    Attributes:
        added, gone: dropped pairs that only one run has.
        entered: pairs of both runs that it dropped only in the second one. left: only in the first one.
    """

    rule: str
    before: RuleCount | None
    now: RuleCount | None
    added: int
    gone: int
    entered: int
    left: int


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A source (a data set's name) in both runs, in pairs.

    Attributes:
        now_kept, now_dropped: pairs of both runs that are kept only in the second one, or only in the first one.
    """

    source: str
    pairs_before: int
    kept_before: int
    pairs_now: int
    kept_now: int
    added: int
    gone: int
    now_kept: int
    now_dropped: int


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """Pairs of both runs that one rule dropped before and another one, or none, drops now.

    Attributes:
        before, now: the rule, or "kept".
        pairs: how many. other_picture, other_caption: of them.
        reason: the most frequent one of the run that drops them; of the second run where both do.
    """

    before: str
    now: str
    pairs: int
    other_picture: int
    other_caption: int
    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """Pairs that are kept in both runs and changed the side of the split."""

    before: str
    now: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class State:
    """A pair in one run.

    Attributes:
        verdict: "kept", or the reason why it was dropped.
        split: the side; "" where it was dropped.
        similarity: of picture and caption by this run's CLIP; null where it was not measured.
        sha256: of the picture's file; "" where it is not known.
    """

    key: str
    caption: str
    verdict: str
    split: str
    similarity: float | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Example:
    """A pair that changed, in both runs; null where a run does not have it."""

    before: State | None
    now: State | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that changed between two curations: the schema of ``diff.json``.

    Attributes:
        before, now: the runs.
        changes: how much changed.
        rules: in their order. sources: the largest first.
        verdicts: the largest first; those of ``changes.verdict`` and of ``changes.other_rule``.
        moves: the largest first.
        settings: by dotted key, the values before and now; only keys that differ. A key that a run lacks is null.
        fingerprints: of scorer, filters, split and heads: before and now, all of them.
        versions: of the program, Python and packages: before and now, only those that differ.
        examples: pairs to look at, by kind of change: ``added_kept, added_dropped, gone_kept, gone_dropped, caption,
            picture, renamed, moved``, and for each of ``verdicts`` ``verdict: BEFORE > NOW``. ``changes.parquet``
            has all.
        notes: what a reader must know, such as what could not be compared.
    """

    schema_version: int
    before: Side
    now: Side
    changes: Changes
    rules: tuple[RuleChange, ...]
    sources: tuple[SourceChange, ...]
    verdicts: tuple[VerdictChange, ...]
    moves: tuple[Move, ...]
    settings: dict[str, tuple[Any, ...]]
    fingerprints: dict[str, tuple[Any, ...]]
    versions: dict[str, tuple[Any, ...]]
    examples: dict[str, tuple[Example, ...]]
    notes: tuple[str, ...]


def examples_of(verdict: VerdictChange) -> str:
    """The key of a change of verdict among the examples."""
    return f"verdict: {verdict.before} > {verdict.now}"


def save(found: Difference, path: Path) -> None:
    """Write ``diff.json``, atomically, with sorted keys."""
    write_certified(path, asdict(found))


def load(path: Path) -> Difference:
    """Read and check ``diff.json``.

    Raises:
        FileNotFoundError: there is none; says what to type.
        UserError: it is damaged, or of another schema version.
        ValueError: a key is missing, unknown or of the wrong type; names it.
    """
    again = f"type: python -m curate.diff {path.parent.name} {named(path.parents[2])}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {again}")
    if (content := read_json(path)) is None:
        raise UserError(f"{path} is damaged; {again}")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema_version {content.get('schema_version')}, not {SCHEMA_VERSION}; {again}"
        )
    return typed(Difference, content, "diff")
