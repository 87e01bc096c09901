"""What changed between two ledgers: which pairs, in what, and how many of them by rule, source and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curate.decide.config import HELD_OUT
from curate.report.diff.ledgers import Ledger
from curate.report.diff.pairs import Matches, match
from curate.report.diff.results import (
    KEPT,
    Amount,
    Changes,
    Example,
    Move,
    RuleChange,
    RuleCount,
    SourceChange,
    State,
    VerdictChange,
    examples_of,
)

SHOWN = {
    "added_kept": 12,
    "added_dropped": 12,
    "gone_kept": 12,
    "gone_dropped": 6,
    "caption": 8,
    "picture": 8,
    "renamed": 6,
    "moved": 6,
}
"""Examples of each kind of change."""

KINDS = ("verdict", "other_rule", "caption", "picture", "renamed", "moved")
"""The changes of pairs that both runs have, see ``results.Changes``."""

_OF_VERDICT, _VERDICTS = 6, 8  # examples of a change of verdict, and changes that have some


@dataclass(frozen=True)
class Compared:
    """Two ledgers and which pairs changed.

    Attributes:
        before, now: the ledgers.
        matches: their pairs that are the same.
        verdict, other_rule, caption, picture, renamed, moved: masks (M,) over ``matches``; see ``results.Changes``.
    """

    before: Ledger
    now: Ledger
    matches: Matches
    verdict: np.ndarray
    other_rule: np.ndarray
    caption: np.ndarray
    picture: np.ndarray
    renamed: np.ndarray
    moved: np.ndarray

    @property
    def both(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of the pairs that both have, (M,) each."""
        return self.before.pairs.iloc[self.matches.before], self.now.pairs.iloc[self.matches.now]

    @property
    def gone(self) -> pd.DataFrame:
        """Rows that only the first ledger has."""
        return self.before.pairs.iloc[self.matches.gone]

    @property
    def added(self) -> pd.DataFrame:
        """Rows that only the second one has."""
        return self.now.pairs.iloc[self.matches.added]


def compare(before: Ledger, now: Ledger) -> Compared:
    """Find the pairs of one ledger in the other, and what differs."""
    matches = match(before.pairs, now.pairs)
    one, two = before.pairs.iloc[matches.before], now.pairs.iloc[matches.now]

    def differs(name: str) -> np.ndarray:
        return one[name].to_numpy() != two[name].to_numpy()

    kept = (one["kept"].to_numpy(), two["kept"].to_numpy())
    known = (one["sha256"] != "").to_numpy(bool) & (two["sha256"] != "").to_numpy(bool)
    sides_known = "split" not in (*before.missing, *now.missing)
    return Compared(
        before,
        now,
        matches,
        verdict=kept[0] != kept[1],
        other_rule=~kept[0] & ~kept[1] & differs("rule"),
        caption=differs("caption"),
        picture=known & differs("sha256"),
        renamed=differs("key"),
        moved=kept[0] & kept[1] & differs("split") & sides_known,
    )


# How much changed


def changes(found: Compared) -> Changes:
    """The amounts of all changes."""
    _, now = found.both
    return Changes(
        added=_amount(found.added),
        added_kept=_amount(found.added[found.added["kept"]]),
        gone=_amount(found.gone),
        gone_kept=_amount(found.gone[found.gone["kept"]]),
        **{name: _amount(now[getattr(found, name)]) for name in KINDS},
        unheld=_unheld(found),
    )


def _amount(rows: pd.DataFrame) -> Amount:
    return Amount(len(rows), int(rows["key"].nunique()))


def _unheld(found: Compared) -> int | None:
    """Pictures that were held out and are trained on now."""
    if {"sha256", "split"} & {*found.before.missing, *found.now.missing}:
        return None
    held = found.before.pairs.loc[found.before.pairs["split"].isin(HELD_OUT), "sha256"].unique()
    now = found.now.pairs
    trained = now.loc[(now["split"] == "train") & (now["sha256"] != ""), "sha256"]
    return int(trained[trained.isin(held)].nunique())


def rules(
    found: Compared, before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> tuple[RuleChange, ...]:
    """Each rule in both runs, in their order.

    Args:
        found: the ledgers compared.
        before, now: ``rules`` of each run's ``funnel.json``, empty where there is none.
    """
    pairs = (found.before.pairs, found.now.pairs)
    counts = [_dropped(table) for table in pairs]
    steps = [_steps(funnel, count) for funnel, count in zip((before, now), counts, strict=True)]
    names = _merged([list(step) for step in steps])
    names += sorted({*counts[0], *counts[1]} - {*names})
    one, two = found.both
    differ = found.verdict | found.other_rule
    added, gone = _dropped(found.added), _dropped(found.gone)
    entered, left = _dropped(two[differ]), _dropped(one[differ])
    return tuple(
        RuleChange(
            name,
            *(
                RuleCount(step.get(name), count.get(name, 0))
                if name in step or name in count
                else None
                for step, count in zip(steps, counts, strict=True)
            ),
            added=added.get(name, 0),
            gone=gone.get(name, 0),
            entered=entered.get(name, 0),
            left=left.get(name, 0),
        )
        for name in names
    )


def disagrees(table: pd.DataFrame, funnel: Sequence[dict[str, Any]]) -> bool:
    """Whether the funnel of a run counts other drops than its ledger has."""
    return _said(funnel) != _dropped(table)


def _said(funnel: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many pairs each rule dropped by the funnel; rules that dropped none are not there."""
    counts: dict[str, int] = {}
    for step in funnel:
        counts[step["rule"]] = counts.get(step["rule"], 0) + step["dropped"]
    return {name: count for name, count in counts.items() if count}


def _dropped(rows: pd.DataFrame) -> dict[str, int]:
    """How many of the rows each rule dropped; rules that dropped none are not there."""
    counts = rows.loc[~rows["kept"], "rule"].value_counts()
    return {str(name): int(count) for name, count in counts.items()}


def _steps(funnel: Sequence[dict[str, Any]], dropped: dict[str, int]) -> dict[str, int | None]:
    """The rules of a run in order, with the pairs that reached each; None where that is not known."""
    names = [step["rule"] for step in funnel]
    reached = {step["rule"]: step["left"] + step["dropped"] for step in funnel}
    agrees = _said(funnel) == dropped
    # What was removed is both before all rules, if curated again, and behind them.
    return {name: reached[name] if agrees and names.count(name) == 1 else None for name in names}


def _merged(orders: Sequence[list[str]]) -> list[str]:
    """The names of both orders: that of the second one, with those of the first one behind their predecessors."""
    before, merged = orders[0], list(orders[1])
    for place, name in enumerate(before):
        if name not in merged:
            ahead = [merged.index(other) for other in before[:place] if other in merged]
            merged.insert(max(ahead[-1:], default=-1) + 1, name)
    return merged


def sources(found: Compared) -> tuple[SourceChange, ...]:
    """Each source in both runs, the largest first."""
    one, two = found.both
    turned_in = two.loc[found.verdict & two["kept"].to_numpy(), "source"].value_counts()
    turned_out = one.loc[found.verdict & one["kept"].to_numpy(), "source"].value_counts()
    columns = []
    for pairs in (found.before.pairs, found.now.pairs):
        columns += [
            pairs["source"].value_counts(),
            pairs.loc[pairs["kept"], "source"].value_counts(),
        ]
    columns += [found.added["source"].value_counts(), found.gone["source"].value_counts()]
    columns += [turned_in, turned_out]
    names = sorted({str(name) for column in columns for name in column.index})
    rows = [SourceChange(name, *(int(column.get(name, 0)) for column in columns)) for name in names]
    return tuple(sorted(rows, key=lambda row: -max(row.pairs_before, row.pairs_now)))


def verdicts(found: Compared) -> tuple[VerdictChange, ...]:
    """The changes of verdict by rule before and now, the largest first."""
    one, two = found.both
    rows = _verdict_rows(found)
    table = pd.DataFrame(
        {
            "before": one["rule"].to_numpy()[rows],
            "now": two["rule"].to_numpy()[rows],
            "picture": found.picture[rows],
            "caption": found.caption[rows],
            "reason_before": one["reason"].to_numpy()[rows],
            "reason_now": two["reason"].to_numpy()[rows],
        }
    )
    listed = []
    for names, group in table.groupby(["before", "now"], sort=True):
        before, now = map(str, names)  # type: ignore[arg-type]
        reasons = group["reason_before" if now == KEPT else "reason_now"].value_counts()
        most = sorted(reasons[reasons == reasons.max()].index)[0]
        listed.append(
            VerdictChange(
                before,
                now,
                len(group),
                int(group["picture"].sum()),
                int(group["caption"].sum()),
                str(most),
            )
        )
    return tuple(sorted(listed, key=lambda change: -change.pairs))


def _verdict_rows(found: Compared) -> np.ndarray:
    return np.flatnonzero(found.verdict | found.other_rule)


def moves(found: Compared) -> tuple[Move, ...]:
    """The changes of side of pairs that are kept in both runs, the largest first."""
    one, two = found.both
    moved = pd.DataFrame(
        {
            "before": one["split"].to_numpy()[found.moved],
            "now": two["split"].to_numpy()[found.moved],
            "key": two["key"].to_numpy()[found.moved],
        }
    )
    listed = [
        Move(*map(str, names), _amount(group))  # type: ignore[arg-type]
        for names, group in moved.groupby(["before", "now"], sort=True)
    ]
    return tuple(sorted(listed, key=lambda move: -move.amount.pairs))


# Which pairs changed


def examples(found: Compared, verdicts: Sequence[VerdictChange]) -> dict[str, tuple[Example, ...]]:
    """Some pairs of each kind of change, spread over them by key, one of each picture; kinds without are not there."""
    one, two = found.both
    kinds: dict[str, tuple[Example, ...]] = {}
    for name, rows, of in (
        ("added", found.added, lambda row: Example(None, _state(row))),
        ("gone", found.gone, lambda row: Example(_state(row), None)),
    ):
        for kind, kept in (("kept", True), ("dropped", False)):
            chosen = _spread(rows[rows["kept"] == kept], SHOWN[f"{name}_{kind}"])
            kinds[f"{name}_{kind}"] = tuple(map(of, chosen.to_dict("records")))
    masks: dict[str, np.ndarray] = {
        name: getattr(found, name) for name in ("caption", "picture", "renamed", "moved")
    }
    limits = {name: SHOWN[name] for name in masks}
    rules_before, rules_now = one["rule"].to_numpy(), two["rule"].to_numpy()
    for change in verdicts[:_VERDICTS]:
        name = examples_of(change)
        masks[name] = (rules_before == change.before) & (rules_now == change.now)
        masks[name] &= found.verdict | found.other_rule
        limits[name] = _OF_VERDICT
    for name, mask in masks.items():
        kinds[name] = tuple(_of_both(one[mask], two[mask], limits[name]))
    return {name: chosen for name, chosen in kinds.items() if chosen}


def _of_both(before: pd.DataFrame, now: pd.DataFrame, count: int) -> Iterator[Example]:
    chosen = _spread(now.reset_index(drop=True), count)
    first = before.iloc[chosen.index].to_dict("records")
    for one, two in zip(first, chosen.to_dict("records"), strict=True):
        yield Example(_state(one), _state(two))


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most ``count`` rows, one of each key, evenly spaced in the order of the keys."""
    each = rows.drop_duplicates("key").sort_values("key", kind="stable")
    places = np.linspace(0, len(each) - 1, min(count, len(each))).round().astype(int)
    return each.iloc[places]


def _state(row: dict[Any, Any]) -> State:
    similarity, keeper = row["clip_similarity"], row["duplicate_of"]
    reason = f"duplicate of {keeper}" if keeper else row["reason"] or row["rule"]
    return State(
        key=row["key"],
        caption=row["caption"],
        verdict=KEPT if row["kept"] else reason,
        split=row["split"],
        similarity=None if pd.isna(similarity) else round(float(similarity), 6),
        sha256=row["sha256"],
    )


_TEXTS = ("key", "caption", "source", "rule", "reason", "split", "sha256")


def table(found: Compared) -> pd.DataFrame:
    """Every pair that changed, a row for each: those that both runs have by key, then the gone, then the added ones.

    Columns: ``change``, the kinds of change with a comma between; then ``NAME_before`` and ``NAME_now`` for some columns
    of the ledger, missing where a run does not have the pair.
    """
    changed = np.logical_or.reduce([getattr(found, kind) for kind in KINDS])
    said = np.full(int(changed.sum()), "", dtype=object)
    for kind in KINDS:
        said[getattr(found, kind)[changed]] += f",{kind}"
    one, two = found.both
    parts = [
        _beside(one[changed], two[changed]).assign(change=[kinds[1:] for kinds in said]),
        _beside(found.gone, None).assign(change="gone"),
        _beside(None, found.added).assign(change="added"),
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["change", *whole.columns.drop("change")]]


def _beside(before: pd.DataFrame | None, now: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of the two ledgers beside each other."""
    count = len(before if before is not None else now if now is not None else ())
    found: dict[str, pd.Series] = {}
    for name in (*_TEXTS, "kept", "clip_similarity"):
        kind = "str" if name in _TEXTS else "boolean" if name == "kept" else "float64"
        for side, rows in (("before", before), ("now", now)):
            values = None if rows is None else rows[name].to_numpy()
            found[f"{name}_{side}"] = pd.Series(values, index=range(count), dtype=kind)
    return pd.DataFrame(found, index=range(count))
