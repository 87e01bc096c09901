"""The first thing that the report says: how many pairs were kept, what took the others, what was not measured."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from curate.decide.cut import is_called_blind
from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import page
from curate.report.duplicates import leaks_are_listed
from curate.run.ledger import UNREADABLE

_NAMED = 3  # of the rules that dropped most
_FATE = {
    SIMILARITY: "fell to similarity",
    "duplicate": "are copies of others",
    "unreadable": "have a picture that cannot be read",
    "no_caption": "have no caption",
    "empty_caption": "have an empty caption",
    "no_similarity": "could not be scored",
}


def banner(verdicts: Verdicts, figures: dict[str, Any]) -> Markup:
    """The headline, coloured by whether something is wrong."""
    scored = verdicts.ledger.count("clip_similarity IS NOT NULL")
    blind = is_called_blind(figures["separation"], scored)
    kept = f"{figures['kept']:,} of {figures['pairs_in']:,} pairs kept"
    kind = "bad" if not figures["kept"] else "warn" if figures["notes"] or blind else "good"
    said = [_dropped(figures, blind), *_unmeasured(verdicts, scored)]
    return page.banner(kind, kept, " ".join(map(page.sentence, filter(None, said))))


def _dropped(figures: dict[str, Any], blind: bool) -> str:
    """What became of the pairs that were not kept, the most frequent first."""
    rules = sorted(figures["rules"], key=lambda rule: -rule["dropped"])
    dropping = [rule for rule in rules if rule["dropped"]]
    parts = [part for rule in dropping[:_NAMED] for part in _parts(rule, figures, blind)]
    if rest := sum(rule["dropped"] for rule in dropping[_NAMED:]):
        parts.append(f"{rest:,} fell to other rules")
    if not blind or any(rule["rule"] == SIMILARITY for rule in dropping):
        return f"{'; '.join(parts)}." if parts else ""
    return "; ".join(
        [*parts, "none fell to similarity, because this CLIP does not know these pictures."]
    )


def _parts(rule: dict[str, Any], figures: dict[str, Any], blind: bool) -> list[str]:
    """What a rule dropped; a picture that was never there is not one that cannot be read."""
    dropped, unfetched = rule["dropped"], 0
    if rule["rule"] == UNREADABLE:
        unfetched = sum(each["pairs"] for each in figures.get("not_fetched", ()))
    counted = ((unfetched, "have a picture that was not fetched"),)
    counted += ((dropped - unfetched, _fate(rule["rule"], blind)),)
    return [
        f"{count:,} {_of_one(fate) if count == 1 else fate}" for count, fate in counted if count
    ]


def _of_one(fate: str) -> str:
    """The same of one pair."""
    for several, one in (("are copies of others", "is a copy of another"), ("have ", "has ")):
        fate = fate.replace(several, one, 1)
    return fate


def _fate(rule: str, blind: bool) -> str:
    said = _FATE.get(rule, f"fell to the rule on {rule.replace('_', ' ')}")
    return f"{said}, which does not know these pictures" if blind and rule == SIMILARITY else said


def _unmeasured(verdicts: Verdicts, scored: int) -> list[str]:
    """A sentence for each check that could not be made."""
    found = []
    if not scored:
        found.append("Similarity was not measured.")
    elif not len(verdicts.null.similarities):
        found.append(
            "Whether this CLIP knows these pictures was not measured: no captions to shuffle."
        )
    if not leaks_are_listed(verdicts.ledger):
        found.append("Near copies on two sides of the split were not looked for.")
    return found
