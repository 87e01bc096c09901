"""A comparison of two curations in words: one line first, then a short table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from curate.decide.config import SIDES
from curate.filters.duplicates import DUPLICATE
from curate.report import page
from curate.report.diff.results import KEPT, Amount, Difference, RuleCount
from curate.run.ledger import UNREADABLE
from curate.run.removals import REASON

_RULES_NAMED = 3  # in one line
_SETTINGS = 12  # on the terminal


def headline(found: Difference) -> str:
    """What a person wants to know first, in one line."""
    parts = [*_input(found), *_verdicts(found), *_contents(found)]
    if not any((found.changes.added.pairs, found.changes.gone.pairs)):
        same = f"the same {found.now.pairs:,} pairs"
        if not parts:
            return f"nothing changed: {same} with the same captions, pictures, verdicts and split"
        parts.insert(0, same)
    return ", ".join(parts)


def kept(found: Difference) -> str:
    """How many pairs are kept, and the change.

    For example "kept 2,762 → 3,010 (+248), images: train 2,503 → 2,730, val 129 → 140, test 130 → 140".
    """
    before, now = found.before, found.now
    sides = [
        f"{side} {arrow(*(f'{run.samples.get(side, 0):,}' for run in (before, now)))}"
        for side in SIDES
    ]
    change = signed(now.kept - before.kept)
    total = arrow(f"{before.kept:,}", f"{now.kept:,}")
    return f"kept {total} ({change}), images: {', '.join(sides)}"


def _input(found: Difference) -> Iterator[str]:
    changes = found.changes
    if changes.added.pairs:
        yield f"+{counted(changes.added.pairs, 'pair')} ({_all(changes.added_kept, changes.added)} kept)"
    if changes.gone.pairs:
        count = changes.gone.pairs
        yield f"−{count:,}" if changes.added.pairs else f"−{counted(count, 'pair')}"


def _all(part: Amount, whole: Amount) -> str:
    return "all" if part.pairs == whole.pairs else f"{part.pairs:,}"


def _verdicts(found: Difference) -> Iterator[str]:
    if not found.changes.verdict.pairs:
        return
    dropped: Counter[str] = Counter()
    regained = 0
    for change in found.verdicts:
        if change.before == KEPT:
            dropped[change.now] += change.pairs
        elif change.now == KEPT:
            regained += change.pairs
    said = [f"{count:,} now {fate(rule)}" for rule, count in dropped.most_common(_RULES_NAMED)]
    said += [f"{regained:,} now kept"] if regained else []
    if rest := sum(dropped.values()) - sum(n for _, n in dropped.most_common(_RULES_NAMED)):
        said.append(f"{rest:,} now dropped by other rules")
    total = f"{found.changes.verdict.pairs:,}"
    if len(said) == 1:
        said = [said[0].removeprefix(f"{total} ")]
    yield f"{total} changed verdict ({', '.join(said)})"


def fate(rule: str) -> str:
    """What became of a pair by the rule that dropped it, if one did.

    >>> fate("kept"), fate("clip_similarity"), fate("duplicate")
    ('kept', 'dropped for clip_similarity', 'dropped as duplicate')
    """
    known = {KEPT: KEPT, UNREADABLE: UNREADABLE, REASON: REASON}
    known[DUPLICATE.name] = f"dropped as {DUPLICATE.name}"
    return known.get(rule) or f"dropped for {page.clean(rule, 40)}"


def _contents(found: Difference) -> Iterator[str]:
    changes = found.changes
    if changes.other_rule.pairs:
        yield f"{changes.other_rule.pairs:,} dropped by another rule"
    if count := changes.caption.pairs:
        yield f"{counted(count, 'caption')} changed"
    for changed, what in (
        (changes.picture, "replaced"),
        (changes.moved, "moved between splits"),
        (changes.renamed, "renamed"),
    ):
        if count := changed.pictures:
            yield f"{counted(count, 'picture')} {what}"


def counted(count: int, word: str) -> str:
    """A number of things.

    >>> counted(1, "pair"), counted(1200, "pair")
    ('1 pair', '1,200 pairs')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def amount(of: Amount) -> str:
    """Pairs and their pictures.

    >>> amount(Amount(3, 1))
    '3 pairs of 1 picture'
    """
    return f"{counted(of.pairs, 'pair')} of {counted(of.pictures, 'picture')}"


def lines(found: Difference) -> Iterator[str]:
    """The headline, what is kept, a table of the rules, the settings and the notes."""
    yield headline(found)
    yield kept(found)
    if found.changes.unheld:
        yield f"warning: {unheld(found.changes.unheld)}"
    yield from _table(found)
    for key, (before, now) in list(found.settings.items())[:_SETTINGS]:
        yield f"setting {page.clean(key)}: {arrow(shown(before), shown(now))}"
    if (more := len(found.settings) - _SETTINGS) > 0:
        yield f"setting {more} more differ"
    yield from (f"note: {note}" for note in found.notes)


def unheld(count: int) -> str:
    """What it means that held-out pictures are trained on now."""
    are = "picture that was held out is" if count == 1 else "pictures that were held out are"
    return f"{count:,} {are} in train now: a model trained on them cannot be judged by the earlier held-out pictures"


def _table(found: Difference) -> Iterator[str]:
    head = f"{'rule':<22}{'dropped':>18}{'change':>9}{'keep rate':>20}"
    yield head
    yield "-" * len(head)
    for rule in found.rules:
        counts = [0 if side is None else side.dropped for side in (rule.before, rule.now)]
        if not any(counts):
            continue
        dropped = arrow(*(dropped_by(side) for side in (rule.before, rule.now)))
        rates = arrow(*(rate(side) for side in (rule.before, rule.now)))
        change = signed(counts[1] - counts[0])
        yield f"{page.clean(rule.rule, 21):<22}{dropped:>18}{change:>9}{rates:>20}"


def dropped_by(count: RuleCount | None) -> str:
    """How many pairs a rule dropped; a dash where the run does not have it."""
    return "–" if count is None else f"{count.dropped:,}"


def rate(count: RuleCount | None) -> str:
    """The share that a rule let pass; a dash where that is not known."""
    share = None if count is None else count.keep_rate
    return "–" if share is None else f"{share:.1%}"


def signed(count: int) -> str:
    """A difference of counts.

    >>> signed(1200), signed(-3), signed(0)
    ('+1,200', '−3', '0')
    """
    return f"+{count:,}" if count > 0 else f"−{-count:,}" if count < 0 else "0"


def arrow(before: str, now: str) -> str:
    """A value before and now; once where it is the same.

    >>> arrow("1", "2"), arrow("1", "1")
    ('1 → 2', '1')
    """
    return before if before == now else f"{before} → {now}"


def shown(value: object, limit: int = 60) -> str:
    """A setting's value as it is typed.

    >>> shown(None), shown(True), shown(0.28), shown(["en"])
    ('null', 'true', '0.28', '[en]')
    """
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, list | tuple):
        text = f"[{','.join(shown(item) for item in value)}]"
    else:
        text = str(value)
    return page.clean(text, limit)
