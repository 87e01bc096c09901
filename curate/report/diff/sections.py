"""A comparison of two curations as sections of a page: for its own report, and for any other that embeds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from curate.report import page
from curate.report.diff import lines
from curate.report.diff.lines import arrow, signed
from curate.report.diff.pictures import Pictures, Shown
from curate.report.diff.results import (
    KEPT,
    Difference,
    Example,
    RuleChange,
    State,
    examples_of,
)
from curate.report.page import Section

PREFIX = "data"
_MOST_SOURCES, _MOST_SETTINGS = 20, 60
_CAPTION = 120
_NO_PICTURE = Shown(why="not shown")


def render(found: Difference, pictures: Pictures) -> str:
    """The page of a comparison.

    Args:
        found: the figures.
        pictures: of its examples, see ``pictures.pictures``.
    """
    before, now = (page.clean(side.name, 80) for side in (found.before, found.now))
    title = f"What changed in the data from {before} to {now}"
    subtitle = (
        f"{arrow(f'{found.before.pairs:,}', f'{found.now.pairs:,}')} pairs, of which "
        f"{arrow(f'{found.before.kept:,}', f'{found.now.kept:,}')} are kept"
    )
    return page.render(page.Page(title, subtitle, sections(found, pictures)))


def sections(found: Difference, pictures: Pictures, prefix: str = PREFIX) -> list[Section]:
    """The comparison as sections, the overview first; those about what did not change are left out.

    Args:
        found: the figures.
        pictures: of its examples, see ``pictures.pictures``; empty for none.
        prefix: begins the sections' anchors, which are unique on a page.
    """
    cards = _Cards(found, pictures)
    parts = [
        ("What changed", "changes", _overview(found)),
        ("By rule", "rules", _rules(found)),
        ("Changed verdicts", "verdicts", _verdicts(found, cards)),
        ("Pairs added", "added", _one_sided(found, cards, "added", "now")),
        ("Pairs gone", "gone", _one_sided(found, cards, "gone", "before")),
        ("Captions changed", "captions", _captions(found, cards)),
        ("Pictures replaced", "pictures", _replaced(found, cards)),
        ("Moved between the sides of the split", "moved", _moved(found, cards)),
        ("Renamed", "renamed", _renamed(found, cards)),
        ("By source", "sources", _sources(found)),
        ("Settings and versions", "settings", _settings(found)),
    ]
    return [Section(title, f"{prefix}-{anchor}", body) for title, anchor, body in parts if body]


def overview(found: Difference, prefix: str = PREFIX) -> Section:
    """The first of ``sections`` alone, for a page that only links to the rest."""
    return Section("What changed in the data", f"{prefix}-changes", _overview(found))


# Overview


def _overview(found: Difference) -> Markup:
    changes = found.changes
    warned = bool(changes.unheld) or bool(found.notes)
    nothing = not any((changes.added.pairs, changes.gone.pairs)) and not _any_changed(found)
    word = (
        "Nothing changed" if nothing else f"{found.now.kept:,} pairs kept, {_more_or_fewer(found)}"
    )
    kind = "warn" if warned else "info" if nothing else "good"
    said = page.sentence(lines.headline(found))
    body = page.banner(kind, word, f"{said} {page.sentence(lines.kept(found))}")
    if changes.unheld:
        body += page.paragraph(page.sentence(lines.unheld(changes.unheld)), "warning")
    for note in found.notes:
        body += page.paragraph(page.sentence(page.clean(note, 600)), "warning")
    return body + _tiles(found) + _runs(found)


def _more_or_fewer(found: Difference) -> str:
    change = found.now.kept - found.before.kept
    if not change:
        return "as many as before"
    return f"{abs(change):,} {'more' if change > 0 else 'fewer'} than before"


def _any_changed(found: Difference) -> bool:
    changes = found.changes
    return any(
        amount.pairs
        for amount in (
            changes.verdict,
            changes.other_rule,
            changes.caption,
            changes.picture,
            changes.renamed,
            changes.moved,
        )
    )


def _tiles(found: Difference) -> Markup:
    changes = found.changes
    kept, dropped = _turned(found)
    rest = (
        (changes.caption.pairs, "captions changed"),
        (changes.picture.pictures, "pictures replaced under their key"),
        (changes.moved.pictures, "pictures moved between splits"),
        (changes.renamed.pictures, "pictures renamed"),
    )
    return page.tiles(
        [
            (
                f"+{changes.added.pairs:,}",
                f"pairs added, {changes.added_kept.pairs:,} of them kept",
            ),
            (
                f"−{changes.gone.pairs:,}",
                f"pairs gone, {changes.gone_kept.pairs:,} of them were kept",
            ),
            (
                f"{changes.verdict.pairs:,}",
                f"changed verdict: {kept:,} now kept, {dropped:,} now dropped",
            ),
            *((f"{count:,}", label) for count, label in rest if count),
        ]
    )


def _turned(found: Difference) -> tuple[int, int]:
    """How many pairs are kept now and were not, and the other way round."""
    kept = sum(change.pairs for change in found.verdicts if change.now == KEPT)
    return kept, found.changes.verdict.pairs - kept


def _runs(found: Difference) -> Markup:
    sides = (found.before, found.now)
    rows: list[list[str | Markup]] = [
        ["pairs", *(f"{side.pairs:,}" for side in sides)],
        ["pictures", *(f"{side.pictures:,}" for side in sides)],
        ["kept", *(_share(side.kept, side.pairs) for side in sides)],
        ["dropped", *(f"{side.dropped:,}" for side in sides)],
        ["unreadable", *(f"{side.unreadable:,}" for side in sides)],
        ["cut on similarity", *(_cut(side.cut, side.cut_by) for side in sides)],
        ["CLIP", *(page.quote(side.clip or "not known", 80) for side in sides)],
        ["folder", *(page.quote(side.folder, 120) for side in sides)],
    ]
    names = [page.clean(side.name, 40) for side in sides]
    return page.details("The two runs", page.table(["", *names], rows))


def _share(part: int, whole: int) -> str:
    """A count and its share."""
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"


def _cut(cut: float | None, by: str) -> str:
    by = page.clean(by, 60)
    return f"none ({by})" if cut is None and by else "none" if cut is None else f"{cut:.4g} ({by})"


# Rules and sources


def _rules(found: Difference) -> Markup:
    shown = [rule for rule in found.rules if _dropping(rule)]
    if not shown:
        return page.paragraph("No rule dropped a pair in either run.")
    idle = len(found.rules) - len(shown)
    head = ["Rule", *_side_heads(found, "dropped"), "Change", *_side_heads(found, "keep rate")]
    head += ["By pairs added", "By pairs gone", "By pairs of both runs"]
    rows = [
        [
            page.clean(rule.rule, 60),
            lines.dropped_by(rule.before),
            lines.dropped_by(rule.now),
            signed(_total(rule.now) - _total(rule.before)),
            lines.rate(rule.before),
            lines.rate(rule.now),
            signed(rule.added),
            signed(-rule.gone),
            _both(rule),
        ]
        for rule in shown
    ]
    text = (
        "Pairs that each rule dropped, in the order of the rules. The keep rate is the share of the pairs that reached "
        "the rule and passed. The last three columns add up to the change."
    )
    more = f" {idle} more rules dropped none." if idle else ""
    return (
        page.figure(_chart(shown), _CHART, _CHART)
        + page.paragraph(text + more)
        + page.table(head, rows)
    )


_CHART = "Pairs that each rule dropped, before and now."


def _dropping(rule: RuleChange) -> bool:
    return bool(_total(rule.before) or _total(rule.now))


def _total(count: object) -> int:
    return getattr(count, "dropped", 0)


def _side_heads(found: Difference, what: str) -> list[str]:
    return [
        f"{what.capitalize()}, {page.clean(side.name, 24)}" for side in (found.before, found.now)
    ]


def _both(rule: RuleChange) -> str:
    """The change by pairs that both runs have: those it drops now, those it does not any more."""
    if not rule.entered and not rule.left:
        return "0"
    return f"{signed(rule.entered - rule.left)} ({signed(rule.entered)}, {signed(-rule.left)})"


def _chart(rules: Sequence[RuleChange]) -> Markup:
    drawing, axes = page.subplots(7.5, 0.55 * len(rules) + 1.1)
    names = [page.clean(rule.rule, 40).replace("$", r"\$") for rule in rules]
    places = range(len(rules))
    axes.barh(
        [p - 0.2 for p in places],
        [_total(r.before) for r in rules],
        0.36,
        color=page.SKY,
        label="before",
    )
    axes.barh(
        [p + 0.2 for p in places],
        [_total(r.now) for r in rules],
        0.36,
        color=page.ORANGE,
        label="now",
    )
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("pairs dropped")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return page.svg(drawing)


def _sources(found: Difference) -> Markup:
    head = ["Source", "Pairs before", "Pairs now", "Kept before", "Kept now"]
    head += ["Added", "Gone", "Now kept", "Now dropped"]
    rows = [
        [
            page.quote(source.source or "(none)", 60),
            source.pairs_before,
            source.pairs_now,
            _share(source.kept_before, source.pairs_before),
            _share(source.kept_now, source.pairs_now),
            source.added,
            source.gone,
            source.now_kept,
            source.now_dropped,
        ]
        for source in found.sources[:_MOST_SOURCES]
    ]
    return page.table(head, rows) + _more(
        len(found.sources) - len(rows), "smaller sources are in diff.json"
    )


def _more(count: int, what: str) -> Markup:
    return page.paragraph(f"{count:,} {what}.", "note") if count > 0 else Markup("")


# Pairs


def _verdicts(found: Difference, cards: _Cards) -> Markup:
    if not found.verdicts:
        return Markup("")
    rows = [
        [
            page.clean(change.before, 60),
            page.clean(change.now, 60),
            change.pairs,
            change.other_picture,
            change.other_caption,
            page.clean(page.short_numbers(change.reason), 100),
        ]
        for change in found.verdicts
    ]
    head = ["Before", "Now", "Pairs", "Other picture", "Other caption", "Reason of most"]
    text = (
        "Pairs of both runs, by the rule that dropped them before and the one that drops them now."
    )
    body = page.paragraph(text) + page.table(head, rows)
    for change in found.verdicts:
        examples = found.examples.get(examples_of(change), ())
        if examples:
            fates = f"Was {lines.fate(change.before)}, is {lines.fate(change.now)}"
            count = lines.counted(change.pairs, "pair")
            body += page.heading(f"{fates}: {count}") + cards.sheet(examples)
    return body


def _one_sided(found: Difference, cards: _Cards, kind: str, side: str) -> Markup:
    amount, kept = getattr(found.changes, kind), getattr(found.changes, f"{kind}_kept")
    if not amount.pairs:
        return Markup("")
    verb = "are" if side == "now" else "were"
    said = (
        f"{lines.amount(amount)}; {kept.pairs:,} {verb} kept, "
        f"{amount.pairs - kept.pairs:,} {verb} dropped or unreadable."
    )
    body = page.paragraph(said)
    for which, title in (("kept", "Kept"), ("dropped", "Dropped")):
        if examples := found.examples.get(f"{kind}_{which}", ()):
            body += page.heading(title) + cards.sheet(examples)
    return body


def _captions(found: Difference, cards: _Cards) -> Markup:
    if not (examples := found.examples.get("caption", ())):
        return Markup("")
    return page.paragraph(f"{lines.amount(found.changes.caption)}.") + cards.sheet(examples)


def _caption(state: State | None) -> Markup:
    return Markup("") if state is None else page.quote(state.caption, 2 * _CAPTION)


def _replaced(found: Difference, cards: _Cards) -> Markup:
    if not (examples := found.examples.get("picture", ())):
        return Markup("")
    rows = [
        [
            _named(example),
            *(cards.picture(example, side) for side in ("before", "now")),
            _verdict(example),
        ]
        for example in examples
    ]
    said = f"{found.changes.picture.pictures:,} keys have another picture now, with {found.changes.picture.pairs:,} pairs."
    return page.paragraph(said) + _rows(["Pair", "Before", "Now", "Verdict"], rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[Markup]]) -> Markup:
    return Markup('<div class="pictures">{}</div>').format(page.table(head, rows, stacked=True))


def _named(example: Example) -> Markup:
    """Caption and key; both captions where they differ."""
    before, now = example.before, example.now
    text = _caption(now)
    if before is not None and now is not None and before.caption != now.caption:
        text = Markup("{} → {}").format(_caption(before), text)
    return text + Markup('<br><span class="note">{}</span>').format(_keys(example))


def _keys(example: Example) -> Markup:
    keys = dict.fromkeys(state.key for state in (example.before, example.now) if state is not None)
    return Markup(" → ").join(page.quote(key, 60) for key in keys)


def _moved(found: Difference, cards: _Cards) -> Markup:
    if not found.moves:
        return Markup("")
    rows = [
        [move.before, move.now, move.amount.pairs, move.amount.pictures] for move in found.moves
    ]
    body = page.paragraph("Pairs that are kept in both runs, by side of the split.")
    body += page.table(["Before", "Now", "Pairs", "Pictures"], rows)
    return body + cards.sheet(found.examples.get("moved", ()))


def _renamed(found: Difference, cards: _Cards) -> Markup:
    if not (examples := found.examples.get("renamed", ())):
        return Markup("")
    said = (
        f"{lines.amount(found.changes.renamed)} have the same bytes and "
        "caption under another key. They count neither as gone nor as added."
    )
    return page.paragraph(said) + cards.sheet(examples)


def _verdict(example: Example) -> Markup:
    """Verdict and similarity, before and now."""
    return Markup('<span class="note">{}</span>').format(_outcome(example))


def _outcome(example: Example) -> str:
    states = [state for state in (example.before, example.now) if state is not None]
    verdicts = dict.fromkeys(page.clean(page.short_numbers(state.verdict), 80) for state in states)
    return " → ".join(verdicts)


def _sides(example: Example) -> list[str]:
    """The sides whose picture is the one that a pair has now, or had last."""
    before, now = example.before, example.now
    if now is None:
        return ["before"]
    same = before is not None and before.sha256 == now.sha256 != ""
    return ["now", "before"] if same else ["now"]


class _Cards:
    """Draws examples with their pictures."""

    def __init__(self, found: Difference, pictures: Pictures) -> None:
        self._pictures = pictures
        self._same_clip = found.before.clip == found.now.clip

    def sheet(self, examples: Sequence[Example]) -> Markup:
        """A grid of examples."""
        return page.sheet(self._card(example) for example in examples)

    def picture(self, example: Example, side: str = "") -> Markup:
        """The picture of one side, by default the one that the pair has now; or why there is none."""
        why = ""
        for name in [side] if side else _sides(example):
            state: State = getattr(example, name)
            shown = self._pictures.get((name, state.key), _NO_PICTURE)
            if shown.uri:
                alt = page.clean(state.caption, _CAPTION)
                return Markup('<img src="{}" alt="{}">').format(shown.uri, alt)
            why = why or shown.why
        return page.paragraph(why, "note")

    def _card(self, example: Example) -> Markup:
        state = example.now or example.before
        assert state is not None
        text = Markup("<b>{}</b> {}").format(
            self._similarity(example), page.quote(state.caption, _CAPTION)
        )
        if example.before is not None and example.before.caption != state.caption:
            text += Markup("<br>before: {}").format(page.quote(example.before.caption, _CAPTION))
        text += Markup('<br><span class="subtitle">{} · {}</span>').format(
            _keys(example), Markup(" · ").join(self._facts(example))
        )
        return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
            self.picture(example), text
        )

    def _similarity(self, example: Example) -> str:
        states = [state for state in (example.before, example.now) if state is not None]
        shown = ["–" if s.similarity is None else f"{s.similarity:.3f}" for s in states]
        if len(shown) == 2 and not self._same_clip:
            return " | ".join(shown)  # of different CLIPs: no change of one number
        return arrow(*shown) if len(shown) == 2 else shown[0]

    def _facts(self, example: Example) -> Iterator[str]:
        yield _outcome(example)
        states = [state for state in (example.before, example.now) if state is not None]
        sides = list(dict.fromkeys(page.clean(state.split, 20) for state in states if state.split))
        if sides:
            yield " → ".join(sides)


# Settings


def _settings(found: Difference) -> Markup:
    names = [page.clean(side.name, 40) for side in (found.before, found.now)]
    body = page.paragraph("No setting differs." if not found.settings else "Settings that differ:")
    if not found.settings and any("settings are not compared" in note for note in found.notes):
        body = page.paragraph("The settings were not compared.", "warning")
    if found.settings:
        rows = [
            [Markup("<code>{}</code>").format(page.clean(key, 120)), *map(_value, values)]
            for key, values in list(found.settings.items())[:_MOST_SETTINGS]
        ]
        body += page.table(["Key", *names], rows)
        body += _more(len(found.settings) - len(rows), "more are in diff.json")
    prints = [
        [name, *(page.quote(str(value or "–"), 40) for value in values), _same(values)]
        for name, values in found.fingerprints.items()
    ]
    if prints:
        body += page.heading("Fingerprints") + page.table(["Of", *names, ""], prints)
    if found.versions:
        rows = [[name, *map(_value, values)] for name, values in found.versions.items()]
        body += page.details("Versions that differ", page.table(["What", *names], rows))
    return body


def _same(values: Sequence[object]) -> Markup:
    return page.badge("info", "same") if values[0] == values[1] else page.badge("warn", "differs")


def _value(value: object) -> Markup:
    return page.quote(lines.shown(value, 200), 200)
