"""The figures of a run: ``funnel.json`` as a dictionary, and its lines for the terminal."""

from __future__ import annotations

import math
from typing import Any

from curate.decide.config import SIDES
from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import not_fetched, siblings
from curate.run.ledger import DROPPED, KEPT, UNREADABLE
from curate.run.ledger_table import LedgerTable


def summarise(verdicts: Verdicts, notes: list[str]) -> dict[str, Any]:
    """All figures of a run as one JSON-ready dictionary, which the report and the terminal show.

    ``planted`` is there if the data set has planted mismatches, see ``planted``; ``not_fetched`` if pictures
    were not fetched, see ``not_fetched.figures``.
    """
    ledger = verdicts.ledger
    status = dict(ledger.tuples("SELECT status, count(*) FROM ledger GROUP BY status"))
    images = dict(
        ledger.tuples("SELECT split, count(DISTINCT image) FROM ledger WHERE kept GROUP BY split")
    )
    cut = verdicts.cut
    funnel: dict[str, Any] = {
        "pairs_in": ledger.pairs,
        "images_in": ledger.images(),
        **{name: int(status.get(name, 0)) for name in (KEPT, DROPPED, UNREADABLE)},
        "samples": {side: int(images.get(side, 0)) for side in SIDES},
        "rules": _rules(verdicts),
        "reasons": _reasons(ledger),
        "clip_model": str(ledger.rows([0])["clip_model"].iloc[0]),
        "cut": {
            "by": verdicts.cut_by,
            "similarity": cut,
            "false_keep_rate": None if cut is None else verdicts.null.false_keep_rate(cut),
            "shuffled_pairs": len(verdicts.null.similarities),
        },
        "separation": verdicts.separation(),
        "split": siblings.figures(verdicts),
        "notes": notes,
    }
    if unfetched := not_fetched.figures(ledger):
        funnel["not_fetched"] = unfetched
    if has_planted(ledger):
        funnel["planted"] = planted(ledger)
    return funnel


def _rules(verdicts: Verdicts) -> list[dict[str, Any]]:
    """How many pairs each rule dropped and left; a rule with a minimum and a maximum counts once."""
    dropped: dict[str, int] = {}
    for name, count in verdicts.steps:
        dropped[name] = dropped.get(name, 0) + count
    left, found = verdicts.ledger.pairs, []
    for name, count in dropped.items():
        left -= count
        found.append({"rule": name, "dropped": count, "left": left})
    return found


def _reasons(ledger: LedgerTable) -> dict[str, int]:
    """Each reason, the most frequent first, then the first in the input."""
    return dict(
        ledger.tuples(
            "SELECT reason, count(*) FROM ledger WHERE NOT kept AND reason IS NOT NULL "
            "GROUP BY reason ORDER BY count(*) DESC, min(row)"
        )
    )


def is_planted(ledger: LedgerTable) -> str:
    """The condition in SQL for pairs whose caption was put on a wrong image; the column must be there."""
    column = ledger.column("planted_mismatch")
    # A source may have a column of this name, and of another type.
    truth = f"{column} != ''" if ledger.is_text("planted_mismatch") else f"{column}::BOOLEAN"
    return f"coalesce({truth}, false)"


def has_planted(ledger: LedgerTable) -> bool:
    """Whether any caption was put on a wrong image."""
    return "planted_mismatch" in ledger and ledger.count(is_planted(ledger)) > 0


def planted(ledger: LedgerTable) -> dict[str, Any]:
    """How well the similarity cut finds captions that were put on wrong images, among scored pairs.

    ``recall`` is the share of these mismatches that the cut dropped, ``precision`` the share of
    mismatches among the pairs it dropped, ``true_keep_rate`` the share of true pairs it did not drop.
    """
    found = dict.fromkeys(((wrong, cut) for wrong in (True, False) for cut in (True, False)), 0)
    for wrong, cut, count in ledger.tuples(
        f"SELECT {is_planted(ledger)} AS wrong, rule = ? AS cut, count(*) FROM ledger "
        "WHERE clip_similarity IS NOT NULL GROUP BY wrong, cut",
        SIMILARITY,
    ):
        found[wrong, cut] = count
    removed, left = found[True, True], found[True, False]
    true_removed, true_kept = found[False, True], found[False, False]
    pairs = sum(found.values())
    return {
        "mismatches": removed + left,
        "mismatches_removed": removed,
        "recall": _share(removed, removed + left),
        "precision": _share(removed, removed + true_removed),
        "true_pairs": true_removed + true_kept,
        "true_pairs_kept": true_kept,
        "true_keep_rate": _share(true_kept, true_removed + true_kept),
        "mismatch_share_before": (removed + left) / pairs if pairs else math.nan,
        "mismatch_share_after": _share(left, left + true_kept),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def numbers(funnel: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the funnel by name, in one level, for trackers."""
    names = ("pairs_in", "images_in", KEPT, DROPPED, UNREADABLE)
    return {
        **{name: funnel[name] for name in names},
        **{f"images_{side}": count for side, count in funnel["samples"].items()},
        **{f"dropped_by/{rule['rule']}": rule["dropped"] for rule in funnel["rules"]},
        "cut": funnel["cut"]["similarity"],
        **{f"planted/{name}": value for name, value in funnel.get("planted", {}).items()},
    }


def lines(funnel: dict[str, Any]) -> list[str]:
    """The figures as a plain table for the terminal."""
    head = f"{'rule':<20}{'dropped':>10}{'left':>10}"
    found = [head, "-" * len(head), f"{'pairs in':<20}{'':>10}{funnel['pairs_in']:>10}"]
    found += [f"{r['rule']:<20}{r['dropped']:>10}{r['left']:>10}" for r in funnel["rules"]]
    samples = ", ".join(f"{side} {count}" for side, count in funnel["samples"].items())
    found += ["-" * len(head), f"{'kept':<20}{'':>10}{funnel['kept']:>10}   images: {samples}"]
    found += [f"cut: {describe_cut(funnel['cut'])}"]
    if "held_out_again" in funnel["split"]:
        found.append(siblings.describe_held_out_again(funnel["split"]["held_out_again"]))
    if "not_fetched" in funnel:
        found.append(not_fetched.line(funnel["not_fetched"]))
    if "planted" in funnel:
        found.append(describe_planted(funnel["planted"]))
    return found + [f"note: {note}" for note in funnel["notes"]]


def describe_cut(cut: dict[str, Any]) -> str:
    """One sentence: the cut, the setting it comes from, and how many shuffled captions pass it."""
    if cut["similarity"] is None:
        return f"none ({cut['by']})"
    where, rate = f"similarity >= {cut['similarity']:.3g} ({cut['by']})", cut["false_keep_rate"]
    if rate is None:
        return f"{where}; no shuffled captions to compare it with"
    return f"{where}; {rate:.1%} of {cut['shuffled_pairs']:,} shuffled captions would pass"


def describe_planted(found: dict[str, Any]) -> str:
    """One sentence about the planted mismatches."""
    return (
        f"planted mismatches: {found['mismatches_removed']} of {found['mismatches']} dropped"
        f"{_percent(found['recall'])}, {found['true_pairs_kept']} of {found['true_pairs']} true pairs "
        f"kept{_percent(found['true_keep_rate'])}"
    )


def _percent(share: float | None) -> str:
    """In brackets; nothing of a share of none."""
    return "" if share is None else f" ({share:.1%})"
