"""The figures of a run: ``funnel.json`` as a dictionary, and its lines for the terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd

from curate.decide.config import SIDES
from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import not_fetched, siblings
from curate.run.ledger import DROPPED, KEPT, UNREADABLE


def summarise(verdicts: Verdicts, notes: list[str]) -> dict[str, Any]:
    """All figures of a run as one JSON-ready dictionary, which the report and the terminal show.

    ``planted`` is there if the data set has planted mismatches, see ``planted``; ``not_fetched`` if pictures
    were not fetched, see ``not_fetched.figures``.
    """
    ledger = verdicts.ledger
    status = ledger["status"].value_counts()
    images = ledger[ledger["kept"]].drop_duplicates("key")["split"].value_counts()
    cut = verdicts.cut
    funnel: dict[str, Any] = {
        "pairs_in": len(ledger),
        "images_in": int(ledger["key"].nunique()),
        **{name: int(status.get(name, 0)) for name in (KEPT, DROPPED, UNREADABLE)},
        "samples": {side: int(images.get(side, 0)) for side in SIDES},
        "rules": _rules(verdicts),
        "reasons": _reasons(ledger),
        "clip_model": str(ledger["clip_model"].iloc[0]),
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
    if "planted_mismatch" in ledger and ledger["planted_mismatch"].any():
        funnel["planted"] = planted(ledger)
    return funnel


def _rules(verdicts: Verdicts) -> list[dict[str, Any]]:
    """How many pairs each rule dropped and left; a rule with a minimum and a maximum counts once."""
    dropped: dict[str, int] = {}
    for name, count in verdicts.steps:
        dropped[name] = dropped.get(name, 0) + count
    left, found = len(verdicts.ledger), []
    for name, count in dropped.items():
        left -= count
        found.append({"rule": name, "dropped": count, "left": left})
    return found


def _reasons(ledger: pd.DataFrame) -> dict[str, int]:
    reasons = ledger.loc[~ledger["kept"], "reason"].value_counts()
    return {str(reason): int(count) for reason, count in reasons.items()}


def planted(ledger: pd.DataFrame) -> dict[str, Any]:
    """How well the similarity cut finds captions that were put on wrong images, among scored pairs.

    ``recall`` is the share of these mismatches that the cut dropped, ``precision`` the share of
    mismatches among the pairs it dropped, ``true_keep_rate`` the share of true pairs it did not drop.
    """
    scored = ledger[ledger["clip_similarity"].notna()]
    wrong = scored["planted_mismatch"].astype(bool)
    cut = scored["rule"] == SIMILARITY
    return {
        "mismatches": int(wrong.sum()),
        "mismatches_removed": int((wrong & cut).sum()),
        "recall": _share(wrong & cut, wrong),
        "precision": _share(wrong & cut, cut),
        "true_pairs": int((~wrong).sum()),
        "true_pairs_kept": int((~wrong & ~cut).sum()),
        "true_keep_rate": _share(~wrong & ~cut, ~wrong),
        "mismatch_share_before": float(wrong.mean()),
        "mismatch_share_after": _share(wrong & ~cut, ~cut),
    }


def _share(part: pd.Series, whole: pd.Series) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


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
