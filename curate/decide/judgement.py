"""The rules that compare pairs with each other, and the verdict on every pair, in SQL.

The rules of rows have put their place into the column ``code`` of the view ``pairs``; here those that pass are
judged on, in the same order as everywhere: how often a caption comes, similarity, the captions of an image, copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curate.decide.tables import PASSES, UNREADABLE
from curate.filters import caption, captions, companions, similarity
from curate.filters.config import FiltersConfig
from curate.filters.duplicates import DUPLICATE
from curate.filters.rule import Reason, Rule, rounded
from curate.run import ledger

if TYPE_CHECKING:
    import duckdb


@dataclass(slots=True)
class Judgement:
    """The judgement of all pairs, rule by rule, in the table ``judged(row, image, similarity, code)``.

    Attributes:
        reasons: what the ledger says, by code; the first is that of kept pairs.
        cuts: by rule, the lowest value that it kept, where the rule says so.
    """

    connection: duckdb.DuckDBPyConnection
    rules: Sequence[Rule]
    reasons: list[Reason] = field(default_factory=list)
    cuts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reasons = [Reason("", ""), *(Reason(rule.name, rule.reason) for rule in self.rules)]
        self.cuts |= {rule.name: rule.cut for rule in self.rules if rule.cut is not None}

    def judge(self, config: FiltersConfig, cut: float | None) -> None:
        """Apply all rules but the one on duplicates.

        Args:
            config: the settings.
            cut: the lowest similarity to keep, from ``minimum`` or the calibration; None for no cut.
        """
        self._each_by_a_number(config, cut)
        fraction = config.clip_similarity.fraction
        if cut is None and fraction is not None:
            self._fraction(fraction)
        for reason in captions.too_few(config.captions):
            self._drop(
                reason,
                "image IN (SELECT image FROM judged WHERE code = 0 GROUP BY image HAVING count(*) < ?)",
                config.captions.at_least,
            )
        for reason in captions.not_best(config.captions):
            self._drop(
                reason,
                "row NOT IN (SELECT first(row ORDER BY similarity DESC, row) FROM judged "
                "WHERE code = 0 GROUP BY image)",
            )

    def _each_by_a_number(self, config: FiltersConfig, cut: float | None) -> None:
        """Rules that need one number for each pair: how often its caption comes, its similarity."""
        cases, joined, values = [], "", []
        for reason in caption.too_often(config.caption):
            joined = (
                "LEFT JOIN (SELECT caption, true AS is_often FROM pairs WHERE code = 0 "
                "GROUP BY caption HAVING count(*) > ?) USING (caption)"
            )
            values.append(config.caption.max_occurrences)
            cases.append(("is_often", self._code(reason)))
        cases.append(("similarity IS NULL", self._code(similarity.unscored())))
        if cut is not None:
            for rule in similarity.rules(cut):
                # Both are exact in double precision: a float, and a bound that was rounded to one.
                cases.append((f"similarity < {float(rounded(cut))!r}::DOUBLE", self._code(rule)))
                self.cuts[rule.name] = cut
        whens = " ".join(f"WHEN {condition} THEN {code}" for condition, code in cases)
        self.connection.sql(
            "CREATE TABLE judged AS SELECT row, image, similarity, "
            f"(CASE WHEN code <> {PASSES} THEN code {whens} ELSE {PASSES} END)::SMALLINT AS code "
            f"FROM pairs {joined}",
            params=values,
        )

    def _fraction(self, fraction: float) -> None:
        """Keep exactly ``similarity.most_of`` pairs, of ties the first by key and caption."""
        reason = similarity.most_similar(fraction)
        left = self._value("SELECT count(*) FROM judged WHERE code = 0")
        most = similarity.most_of(left, fraction)
        if most < left:
            last, above = self.connection.sql(
                "SELECT similarity, up_to - times FROM (SELECT similarity, times, "
                "sum(times) OVER (ORDER BY similarity DESC) AS up_to FROM (SELECT similarity, "
                "count(*) AS times FROM judged WHERE code = 0 GROUP BY similarity)) "
                "WHERE up_to >= ? ORDER BY up_to LIMIT 1",
                params=[most],
            ).fetchall()[0]
            self._drop(
                reason,
                "similarity < ?::FLOAT OR row IN (SELECT row FROM judged JOIN pairs USING (row) "
                "WHERE judged.code = 0 AND judged.similarity = ?::FLOAT "
                f"ORDER BY key, row OFFSET {most - int(above)})",
                last,
                last,
            )
        else:
            self._code(reason)
        lowest = self._value("SELECT min(similarity) FROM judged WHERE code = 0")
        if lowest is not None:
            self.cuts[reason.name] = lowest

    def drop_copies(self) -> None:
        """Drop the pairs of images in the table ``keepers``."""
        self._drop(DUPLICATE, "image IN (SELECT image FROM keepers)")

    def steps(self, wrong_companions: Mapping[str, int]) -> list[tuple[str, int]]:
        """(rule, pairs it dropped) in the order of application; "unreadable" first.

        Args:
            wrong_companions: each thing that is wrong with companions => how many pairs it drops, a step of its own.
        """
        rows = self.connection.sql("SELECT code, count(*) FROM judged GROUP BY code").fetchall()
        counts = Counter(dict(rows))
        found = [(ledger.UNREADABLE, counts[UNREADABLE])]
        for code, reason in enumerate(self.reasons[1:], start=1):
            if reason == companions.ANY:
                found += [
                    (reason.name, wrong_companions[error]) for error in sorted(wrong_companions)
                ]
            else:
                found.append((reason.name, counts[code]))
        return found

    def _code(self, reason: Reason) -> int:
        """The code of the next rule."""
        self.reasons.append(Reason(reason.name, reason.reason))
        return len(self.reasons) - 1

    def _drop(self, reason: Reason, condition: str, *values: Any) -> None:
        """Drop the pairs that are left and meet a condition."""
        code = self._code(reason)
        self.connection.sql(
            "CREATE TABLE judged_on AS SELECT row, image, similarity, (CASE WHEN code = 0 AND "
            f"({condition}) THEN {code} ELSE code END)::SMALLINT AS code FROM judged",
            params=list(values),
        )
        self.connection.sql("DROP TABLE judged")
        self.connection.sql("ALTER TABLE judged_on RENAME TO judged")

    def _value(self, query: str) -> Any:
        ((value,),) = self.connection.sql(query).fetchall()
        return value
