"""The section on siblings and the split: what is held out, which groups siblings joined, what is left across."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd
from markupsafe import Markup

from curate.decide.config import REMEDY, SIDES
from curate.decide.leaks import Leaks
from curate.decide.siblings import LARGEST
from curate.decide.stage import Verdicts
from curate.report import counts, page
from curate.report.pictures import Pictures

GROUPS, OF_GROUP, LEAKS = 6, 4, 8  # groups shown, pictures of each, and pairs across the sides
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
    kept = ledger[ledger["kept"]]
    of_siblings = joining(ledger)
    pictures = kept.loc[kept["duplicate_group"].isin(of_siblings.index), "key"].nunique()
    held = kept.groupby("split")["duplicate_group"].nunique()
    again = verdicts.held_out_again
    return {
        **({} if again is None else {"held_out_again": asdict(again)}),
        "groups": {side: int(held.get(side, 0)) for side in SIDES},
        "siblings": {
            "groups": len(of_siblings),
            "pictures": int(pictures),
            "loosened": verdicts.loosened,
            "level": leaks.level,
        },
        "leaks": leaks.summary(),
    }


def joining(ledger: pd.DataFrame) -> pd.Series:
    """By name of the group, how many groups of copies each group of kept siblings has: 2 and more."""
    kept = ledger[ledger["kept"] & (ledger["duplicate_group"] != "")]
    copies = kept.groupby("duplicate_group")["copy_group"].nunique()
    return copies[copies > 1]


def _sides(ledger: pd.DataFrame) -> Markup:
    rows = []
    for side in SIDES:
        query = f"kept and split == {side!r}"
        found = ledger.query(query)
        groups = page.Count(
            int(found["duplicate_group"].nunique()),
            f'ledger.query({query!r})["duplicate_group"].nunique()',
        )
        rows.append([side, counts.images(found["key"].nunique(), query), groups])
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
    found = joining(ledger)
    if found.empty:
        return page.paragraph("No siblings were joined: each group holds copies of one picture.")
    text = Markup("{} groups hold siblings; all of them are kept. The largest:").format(
        page.Count(len(found), f"({_JOINING} > 1).sum()")
    )
    kept = ledger[ledger["kept"]].drop_duplicates("key")
    largest = found.reset_index().sort_values(
        ["copy_group", "duplicate_group"], ascending=[False, True]
    )
    shown = [
        kept[kept["duplicate_group"] == name].drop_duplicates("copy_group").head(OF_GROUP)
        for name in largest["duplicate_group"].head(GROUPS)
    ]
    return page.paragraph(text) + _loosened(verdicts) + pictures.sheet(pd.concat(shown), _side)


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
    kept = verdicts.ledger[verdicts.ledger["kept"]].drop_duplicates("key")
    sheet = pictures.sheet(kept.set_index("key", drop=False).loc[keys], _side)
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
