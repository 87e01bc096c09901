"""The section on siblings and the split: what is held out, which groups siblings joined, what is left across."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from curate.decide.config import REMEDY, SIDES
from curate.decide.leaks import Leaks
from curate.decide.siblings import LARGEST
from curate.decide.stage import Verdicts
from curate.report import counts, page
from curate.report.pictures import Pictures
from curate.run.ledger_table import LedgerTable

GROUPS, OF_GROUP, LEAKS = 6, 4, 8  # groups shown, pictures of each, and pairs across the sides
_OF_GROUPS = "count(DISTINCT duplicate_group)"
_JOINING = 'ledger.query("kept and duplicate_group != \'\'").groupby("duplicate_group")["copy_group"].nunique()'


def section(verdicts: Verdicts, pictures: Pictures) -> Markup:
    """All of it; a sentence for what was not measured."""
    return (
        _sides(verdicts.ledger)
        + _held_out_again(verdicts)
        + _groups(verdicts, pictures)
        + page.heading("Siblings left across the split")
        + _leaks(verdicts, pictures)
    )


def figures(verdicts: Verdicts) -> dict[str, Any]:
    """What ``funnel.json`` says about the split: groups of each side, groups of siblings, and what is left."""
    ledger, leaks = verdicts.ledger, verdicts.leaks
    held = dict(ledger.tuples(f"SELECT split, {_OF_GROUPS} FROM ledger WHERE kept GROUP BY split"))
    _join(ledger)
    pictures = ledger.images("kept AND duplicate_group IN (SELECT name FROM report_siblings)")
    again = verdicts.held_out_again
    return {
        **({} if again is None else {"held_out_again": asdict(again)}),
        "groups": {side: int(held.get(side, 0)) for side in SIDES},
        "siblings": {
            "groups": ledger.value("SELECT count(*) FROM report_siblings"),
            "pictures": pictures,
            "loosened": verdicts.loosened,
            "level": leaks.level,
        },
        "leaks": leaks.summary(),
    }


def _join(ledger: LedgerTable) -> None:
    """Make the table ``report_siblings``: each group of kept siblings, with how many groups of copies it has, 2 and more."""
    ledger.connection.sql(
        # Copies are counted in few groups alone, since each count of different ones has a table of its own.
        "CREATE OR REPLACE TEMP TABLE report_siblings AS WITH several AS ("
        "SELECT duplicate_group AS name FROM ledger WHERE kept AND duplicate_group != '' "
        "GROUP BY name HAVING min(copy_group) != max(copy_group)) "
        "SELECT duplicate_group AS name, count(DISTINCT copy_group) AS copies FROM ledger "
        "WHERE kept AND duplicate_group IN (FROM several) GROUP BY name"
    )


def _sides(ledger: LedgerTable) -> Markup:
    rows = []
    for side in SIDES:
        query = f"kept and split == {side!r}"
        found = ledger.value(f"SELECT {_OF_GROUPS} FROM ledger WHERE kept AND split = ?", side)
        groups = page.Count(int(found), f'ledger.query({query!r})["duplicate_group"].nunique()')
        images = ledger.images("kept AND split = ?", side)
        rows.append([side, counts.images(images, query), groups])
    text = (
        "A group holds the copies of a picture and its siblings: pictures with near captions and near CLIP "
        "embeddings. It is never divided, and statistics of an evaluation count groups."
    )
    return page.paragraph(text) + counts.table(["side", "images", "groups"], rows)


def _held_out_again(verdicts: Verdicts) -> Markup:
    again = verdicts.held_out_again
    return Markup() if again is None else page.paragraph(describe_held_out_again(asdict(again)))


def describe_held_out_again(found: dict[str, Any]) -> str:
    """One sentence, from the figures of a ``HeldOutAgain``: how much of ``split.held_out`` is held out again."""
    sides = ", ".join(f"{side} {count:,}" for side, count in found["sides"].items())
    return (
        f"Held out again, by split.held_out: {sum(found['sides'].values()):,} of {found['listed']:,} pictures ({sides}), "
        f"and {found['joined']:,} more that are in a group with one of its pictures."
    )


def _groups(verdicts: Verdicts, pictures: Pictures) -> Markup:
    ledger = verdicts.ledger
    _join(ledger)
    groups = ledger.value("SELECT count(*) FROM report_siblings")
    if not groups:
        return page.paragraph("No siblings were joined: each group holds copies of one picture.")
    text = Markup("{} groups hold siblings; all of them are kept. The largest:").format(
        page.Count(groups, f"({_JOINING} > 1).sum()")
    )
    shown = list[int]()
    for (name,) in ledger.tuples(
        f"SELECT name FROM report_siblings ORDER BY copies DESC, name LIMIT {GROUPS}"
    ):
        of_group = ledger.tuples(
            "SELECT min(row) AS first FROM ledger WHERE kept AND duplicate_group = ? "
            f"GROUP BY copy_group ORDER BY first LIMIT {OF_GROUP}",
            name,
        )
        shown += [number for (number,) in of_group]
    return page.paragraph(text) + _loosened(verdicts) + pictures.sheet(ledger.rows(shown), _side)


def _loosened(verdicts: Verdicts) -> Markup:
    if not verdicts.loosened:
        return Markup()
    return page.paragraph(
        f"{verdicts.loosened:,} images would have been joined with more than {LARGEST} others' groups by one "
        "sibling after another; of these only the nearest were joined, so that siblings may be on several sides.",
        "note",
    )


def _leaks(verdicts: Verdicts, pictures: Pictures) -> Markup:
    leaks = verdicts.leaks
    if leaks.level is None or not any(leaks.looked_at.values()):
        return page.paragraph(
            "Not measured: siblings across the split, because no held-out image could be compared with others.",
            "warning",
        )
    said = " ".join(sentence(leaks, side) for side, count in leaks.looked_at.items() if count)
    text = page.paragraph(
        f"{said} Siblings have near captions, and a cosine of at least {leaks.level:.3f}, which one in a hundred "
        "pairs of images with unlike captions reaches."
    )
    if leaks.pairs.empty:
        return text
    shown = leaks.pairs.head(LEAKS)
    head = ["image", "side", "image in train", "cosine", "shared words"]
    rows = [
        [page.quote(own, 60), side, page.quote(other, 60), f"{cosine:.3f}", f"{shared:.0%}"]
        for own, side, other, cosine, shared in shown[
            ["key", "split", "other_key", "cosine", "shared"]
        ].itertuples(index=False)
    ]
    keys = shown[["key", "other_key"]].to_numpy().ravel()
    first = dict(
        verdicts.ledger.tuples(
            "SELECT key, min(row) FROM ledger WHERE kept AND key IN (SELECT unnest(?::VARCHAR[])) GROUP BY key",
            keys.tolist(),
        )
    )
    sheet = pictures.sheet(verdicts.ledger.rows([first[key] for key in keys]), _side)
    return text + page.paragraph(f"{REMEDY}. The nearest:") + page.table(head, rows) + sheet


def sentence(leaks: Leaks, side: str) -> str:
    """How many of a side's pictures have a sibling in train."""
    found = leaks.summary()[side]
    return (
        f"Of {found['looked_at']:,} images in {side}, {found['with_sibling_in_train']:,} have a sibling in train "
        f"({leaks.share(side):.1%})."
    )


def _side(row: dict) -> str:
    return f"in {row['split']}"
