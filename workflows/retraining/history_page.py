"""``<series>-series/history.html``: what is in use, how every retraining ended, and the figures over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from curate.run.files import write_text
from evaluate.evaluators import Description, descriptions
from evaluate.results import Metric
from workflows.retraining import timeline
from workflows.retraining.series import Series
from workflows.retraining.timeline import (
    CURATION_OF,
    HELDOUT,
    PROMPTS,
    RUNNING,
    Retraining,
    Timeline,
)

FILE = "history.html"
OUTCOMES = {
    "promoted": ("good", page.GREEN, "o"),
    "rejected": ("bad", page.VERMILLION, "X"),
    "undecided": ("warn", page.ORANGE, "D"),
    "abandoned": ("info", page.PURPLE, "s"),
    RUNNING: ("info", page.PURPLE, "s"),
}
"""How each outcome is shown: kind of badge, colour and marker."""

_WIDTH = 7.5  # inches before the page scales figures to its own width
_NEWEST = 20  # retrainings that are listed unasked
_TICKS, _FEWEST = 10, 5  # on the axis of retrainings: labels, and places
_LEAST_SPAN = 10  # points that the axis of shares shows
_LONGEST = 600  # characters of a sentence
_REPORTS = {"curation": "data", "evaluation": "evaluation"}


def write(series: Series) -> Path:
    """Write the page of a series, and say where.

    Raises:
        UserError: the file that says which run is in use, or a run's record, is damaged.
    """
    path = series.folder / FILE
    write_text(path, render(timeline.of(series)))
    return path


def render(found: Timeline) -> str:
    """The page; links are relative to the folder of the series."""
    sections = [Section("Now", "now", _now(found))]
    if any(each.metric(*HELDOUT)[1].value is not None for each in found.retrainings):
        sections.append(Section("Held-out loss", "loss", _losses(found)))
    if any(each.metric(PROMPTS)[1].value is not None for each in found.retrainings):
        sections.append(Section("Prompt following", "prompts", _prompts(found)))
    if any(each.data for each in found.retrainings):
        sections.append(Section("Data", "data", _data(found)))
    sections.append(Section("Retrainings", "retrainings", _table(found)))
    if found.by_hand:
        sections.append(Section("Changed by hand", "by-hand", _by_hand(found)))
    sections.append(Section("How to read this", "glossary", _glossary()))
    name = page.clean(found.name, 80)
    subtitle = (
        f"Every retraining of {name}: its data, what its evaluation found, and what became of it"
    )
    return page.render(page.Page(f"History of {name}", subtitle, sections))


def day(when: str) -> str:
    """The date and the minute of an ISO time, for people.

    >>> day("2026-11-29T12:43:20+00:00")
    '2026-11-29 12:43'
    """
    return when[:16].replace("T", " ")


# What is said first


def _now(found: Timeline) -> Markup:
    parts = _part("In use", _in_use(found))
    if (last := found.last) is not None:
        parts += _part(
            "Last retraining", _ended(last, f"{page.clean(last.run, 80)} was {last.outcome}")
        )
    for each in found.retrainings:
        if each.outcome == RUNNING:
            text = f"{page.clean(each.run, 80)} was started {day(each.when)} UTC and has not ended."
            parts += _part("Under way", page.paragraph(text))
    body = Markup('<div class="parts">{}</div>').format(parts) + page.tiles(_figures(found))
    if found.export:
        body += Markup("<p>To load: <code>{}</code></p>").format(page.clean(found.export, 400))
    return body


def _part(title: str, body: Markup) -> Markup:
    return Markup('<div class="part"><h3>{}</h3>{}</div>').format(title, body)


def _in_use(found: Timeline) -> Markup:
    current = found.current
    if current is None:
        return page.paragraph("Nothing was promoted yet: the base model is in use.")
    how = {"promoted": "its retraining promoted it"}.get(current.event, f"it was {current.event}")
    before = f" Before it {page.clean(current.previous, 80)} was." if current.previous else ""
    return page.paragraph(
        f"{page.clean(current.run, 80)} is in use since {day(current.since)} UTC: {how}.{before}"
    )


def _ended(each: Retraining, text: str) -> Markup:
    kind = OUTCOMES[each.outcome][0]
    return Markup("<p>{} {}, {} UTC. {}</p>").format(
        page.badge(kind, each.outcome), text, day(each.when), page.clean(each.sentence, _LONGEST)
    )


def _figures(found: Timeline) -> list[tuple[str, str]]:
    ended = [each for each in found.retrainings if each.outcome != RUNNING]
    promoted = sum(each.outcome == "promoted" for each in ended)
    tiles = [(f"{len(ended):,}", "retrainings"), (f"{promoted:,}", "promoted")]
    current = next((each for each in found.retrainings if each.is_current), None)
    if current is not None and current.data:
        tiles.append((f"{current.data['kept']:,}", "pairs kept, of the run in use"))
    if current is not None:
        name, metric = current.metric(*HELDOUT)
        if metric.value is not None:
            short = descriptions()[name].short(metric)
            tiles.append((short, "held-out loss against the base, of the run in use"))
    return tiles


# Figures


def _losses(found: Timeline) -> Markup:
    caption = (
        "Loss of the checkpoint to keep against the base model, on pictures that were held out; below the dotted "
        "line is better. Bars are 95 % intervals over groups of pictures. Each retraining is measured on the "
        "pictures that were held out then, so that small steps from one to the next mean nothing: the gate "
        "compares with the run in use on equal pictures."
    )
    drawing, axes = page.subplots(_WIDTH, 3.6)
    _draw(axes, found.retrainings, HELDOUT, scale=100)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("loss against the base, %")
    return page.figure(page.svg(drawing), caption, caption)


def _prompts(found: Timeline) -> Markup:
    caption = (
        "How well drawn pictures show their captions, by CLIP: 0 is real pictures with wrong captions, 1 is real "
        "pictures with their own. Bars are 95 % intervals."
    )
    drawing, axes = page.subplots(_WIDTH, 2.8)
    _draw(axes, found.retrainings, (PROMPTS,))
    axes.set_ylabel("prompt following")
    return page.figure(page.svg(drawing), caption, caption)


def _draw(
    axes: Any, retrainings: Sequence[Retraining], names: Sequence[str], scale: float = 1
) -> None:
    """A metric of each retraining with its interval, by the retraining's number."""
    size = 7 if len(retrainings) <= _NEWEST else 4.5
    named = set[str]()
    for each in retrainings:
        metric = each.metric(*names)[1]
        if metric.value is None:
            continue
        _, colour, marker = OUTCOMES[each.outcome]
        low, high = (scale * bound for bound in _bounds(metric))
        x, y = _number(each), scale * metric.value
        axes.plot([x, x], [low, high], color=colour, alpha=0.45, linewidth=size / 2)
        label = "_" if each.outcome in named else each.outcome  # one entry in the legend
        axes.plot(x, y, marker, color=colour, markersize=size, label=label, linestyle="")
        named.add(each.outcome)
        if each.is_current:
            axes.axvline(x, color="black", linewidth=0.8, alpha=0.5, zorder=0)
            axes.annotate("in use", (x, 1), xytext=(4, 0), **_AT_TOP)
    _number_ticks(axes, retrainings)
    axes.margins(y=0.18)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


_AT_TOP: dict[str, Any] = {
    "xycoords": ("data", "axes fraction"),
    "textcoords": "offset points",
    "ha": "left",
    "va": "top",
}


def _number(each: Retraining) -> int:
    return int(each.run.rpartition("-")[2])


def _bounds(metric: Metric) -> tuple[float, float]:
    value = metric.value or 0.0
    low, high = (value if bound is None else bound for bound in (metric.low, metric.high))
    return low, high


def _number_ticks(axes: Any, retrainings: Sequence[Retraining]) -> None:
    """Whole numbers below the figure, however many retrainings there are, and room where there are few."""
    numbers = [_number(each) for each in retrainings]
    first, last = min(numbers), max(numbers)
    every = -(-(last - first + 1) // _TICKS)
    places = max(last - first, _FEWEST)
    axes.set_xlim(first - 0.7, first + places + max(0.7, 0.08 * places))  # and for "in use"
    axes.set_xticks(range(first, last + 1, every))
    axes.set_xlabel("retraining")


def _data(found: Timeline) -> Markup:
    known = [each for each in found.retrainings if each.data]
    drawing, panels = page.subplots(_WIDTH, 4.6, 2, 1, sharex=True, height_ratios=[3, 2])
    pairs, rates = panels
    numbers = [_number(each) for each in known]
    kept = [each.data["kept"] for each in known]
    others = [each.data.get("pairs_in", 0) - each.data["kept"] for each in known]
    pairs.bar(numbers, kept, color=page.BLUE, label="kept", width=0.7)
    pairs.bar(numbers, others, bottom=kept, color=page.ORANGE, label="not kept", width=0.7)
    pairs.set_ylabel("pairs")
    pairs.grid(axis="x", visible=False)
    pairs.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    pairs.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    shares = [100 * each.data.get("keep_rate", 0) for each in known]
    rates.plot(numbers, shares, "o-", color=page.BLUE, markersize=4)
    rates.set_ylabel("kept, %")
    middle = (min(shares) + max(shares)) / 2
    half = max(_LEAST_SPAN, 1.3 * (max(shares) - min(shares))) / 2
    rates.set_ylim(max(0, middle - half), min(100.5, middle + half))
    _number_ticks(rates, found.retrainings)
    caption = "Pairs that came in, kept and not, and the share that was kept, by retraining."
    return page.figure(page.svg(drawing), caption, caption)


# Tables


def _table(found: Timeline) -> Markup:
    if not found.retrainings:
        return page.paragraph("There was none yet.")
    newest = found.retrainings[::-1]
    body = _rows(newest[:_NEWEST])
    if rest := newest[_NEWEST:]:
        body += page.details(f"{len(rest):,} earlier ones", _rows(rest))
    return body


def _rows(retrainings: Sequence[Retraining]) -> Markup:
    head = [
        "Retraining",
        "Pairs kept",
        "Held-out loss",
        "Prompt following",
        "Verdict",
        "Gate",
        "What became of it",
    ]
    return page.table(head, [_row(each) for each in retrainings])


def _row(each: Retraining) -> list[Any]:
    judged = each.evaluation
    found = [""] * 4  # a phone leaves out empty cells
    if judged:
        estimates = [_estimate(each.shown(*names)) for names in (HELDOUT, (PROMPTS,))]
        found = [*estimates, judged["verdict"].replace("_", " "), judged["gate"]]
    return [_name(each), _kept(each), *found, _outcome(each)]


def _name(each: Retraining) -> Markup:
    name = Markup('<span class="whole">{}</span>').format(page.clean(each.run, 80))
    if "retraining" in each.pages:
        name = _link(each.pages["retraining"], name)
    when = Markup('<br><span class="note whole">{}</span>').format(day(each.when))
    mark = Markup("<br>{}").format(page.badge("good", "in use")) if each.is_current else ""
    return name + when + mark


def _link(path: str, text: str | Markup) -> Markup:
    """A link to a file below ``run.root``, whose name may hold any sign."""
    return Markup('<a href="../{}">{}</a>').format(quote(path), text)


def _kept(each: Retraining) -> str | Markup:
    if not each.data:
        return "–"
    rate = each.data.get("keep_rate")
    return _two_lines(f"{each.data['kept']:,}", "" if rate is None else f"{rate:.1%}")


def _estimate(shown: str) -> Markup:
    """A metric's interval below its value."""
    value, bracket, interval = shown.partition(" [")
    return _two_lines(value, f"{bracket.strip()}{interval}")


def _two_lines(first: str, second: str) -> Markup:
    below = Markup('<br><span class="note whole">{}</span>').format(second) if second else ""
    return Markup('<span class="whole">{}</span>{}').format(first, below)


def _outcome(each: Retraining) -> Markup:
    links = [
        _link(
            path, page.clean(_REPORTS.get(name) or f"data of {name.removeprefix(CURATION_OF)}", 80)
        )
        for name, path in each.pages.items()
        if name in _REPORTS or name.startswith(CURATION_OF)
    ]
    body = Markup("{} {}").format(
        page.badge(OUTCOMES[each.outcome][0], each.outcome), page.clean(each.sentence, _LONGEST)
    )
    return body + (Markup(" · ") + Markup(", ").join(links) if links else Markup(""))


def _by_hand(found: Timeline) -> Markup:
    rows = [
        [day(entry.when), entry.event, entry.run, entry.current, page.clean(entry.sentence, 400)]
        for entry in reversed(found.by_hand)
    ]
    return page.table(["When", "What", "Run", "In use afterwards", "Said"], rows)


def _glossary() -> Markup:
    known = descriptions()
    extra = {
        "Promoted": "The gate passed, and no required comparison with the run in use was lost: the run replaced it.",
        "Rejected": "The gate failed: what was in use stays in use.",
        "Undecided": "A required metric was not measured, or its interval contains the threshold; nothing changes.",
        "Abandoned": "Settings changed before it was judged, and another retraining took its place.",
    }
    metrics = [known[name] for name in (*HELDOUT, PROMPTS)]
    rows = [[text.title, _meaning(text)] for text in metrics]
    return page.table(["Term", "Meaning"], [*rows, *extra.items()])


def _meaning(text: Description) -> str:
    return f"{text.meaning} {text.better.capitalize()} is better." if text.better else text.meaning
