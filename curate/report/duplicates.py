"""Images that count as the same: how many, how many stay, the largest groups, what the split may have missed."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from curate.decide.split import leaks
from curate.report import counts, page
from curate.report.pictures import Pictures

SIZES = ((2, 2), (3, 3), (4, 4), (5, 9), (10, 99), (100, None))  # images of a group, ends included
GROUPS, OF_GROUP = 6, 4
LEAK_BITS, LEAKS = 8, 6  # how near, of 64 bits, and how many pairs are shown
MOST_COMPARED = 200_000  # kept pictures: their hashes take five seconds
_PER_GROUP = 'ledger.query("duplicate_group != \'\'").groupby("duplicate_group")["key"].nunique()'


def section(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The groups, then what looks alike on different sides; each one sentence where there is none."""
    return _groups(ledger, pictures) + page.heading("Across the split") + _leaks(ledger, pictures)


def _groups(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    images = ledger.loc[ledger["duplicate_group"] != "", ["key", "duplicate_group", "kept"]]
    sizes = images.drop_duplicates("key")["duplicate_group"].value_counts(sort=False)
    sizes = sizes[sizes > 1]
    if sizes.empty:
        return page.paragraph("No image that was decoded has a copy.")
    largest = sizes.reset_index().sort_values(
        ["count", "duplicate_group"], ascending=[False, True], ignore_index=True
    )
    return Markup("").join(
        [
            _table(sizes),
            _kept(ledger),
            page.heading("The largest groups"),
            _largest([str(name) for name in largest["duplicate_group"][:GROUPS]], ledger, pictures),
        ]
    )


def _table(sizes: pd.Series) -> Markup:
    rows = []
    for low, high in SIZES:
        found = sizes[(sizes >= low) & (sizes <= (high or sizes.max()))]
        if found.empty:
            continue
        label = f"{low} and more" if high is None else f"{low}–{high}" if high > low else f"{low}"
        within = f"{_PER_GROUP}.loc[lambda n: (n >= {low}){f' & (n <= {high})' if high else ''}]"
        rows.append(
            [
                Markup("{}").format(label),
                page.Count(len(found), f"len({within})"),
                page.Count(int(found.sum()), f"{within}.sum()"),
            ]
        )
    return counts.table(["images in the group", "groups", "images"], rows)


def _kept(ledger: pd.DataFrame) -> Markup:
    """What went as a copy, and what stays although it has one."""
    dropped = counts.pairs((ledger["duplicate_of"] != "").sum(), "duplicate_of != ''")
    kept = ledger.loc[ledger["kept"], ["key", "duplicate_group"]].drop_duplicates("key")
    again = kept.loc[kept["duplicate_group"] != "", "duplicate_group"].duplicated().sum()
    expression = (
        'ledger.query("kept and duplicate_group != \'\'").drop_duplicates("key")'
        '["duplicate_group"].duplicated().sum()'
    )
    return page.paragraph(
        Markup(
            "Pairs dropped because another image stays in their stead: {}. Kept images that are "
            "copies of another kept one, which a model learns by heart sooner: {}."
        ).format(dropped, page.Count(int(again), expression))
    )


def _largest(names: list[str], ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The groups in a table; of each the image that stays, where one does, and copies of it."""
    rows, shown = [], []
    for name in names:
        pairs, query = ledger[ledger["duplicate_group"] == name], f"duplicate_group == {name!r}"
        images = pairs.sort_values("kept", ascending=False, kind="stable").drop_duplicates("key")
        first = page.quote(images["key"].iloc[0], 60)
        rows.append([first, counts.images(len(images), query), counts.pairs(len(pairs), query)])
        shown.append(images.head(OF_GROUP))
    table = counts.table(["group of", "images", "pairs"], rows)
    return table + pictures.sheet(pd.concat(shown), _status)


def _leaks(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The nearest pairs of kept pictures on different sides, side by side."""
    kept = ledger[ledger["kept"]]
    if (count := kept["key"].nunique()) > MOST_COMPARED:
        skipped = (
            f"{count:,} kept pictures are too many to look here for near ones on different sides; "
            f"in Python, leaks(ledger, {LEAK_BITS}) of curate.decide.split does."
        )
        return page.paragraph(skipped, "note")
    found = leaks(kept, LEAK_BITS)
    alike = f"alike to {LEAK_BITS} of 64 bits of their hashes or of the same address"
    if found.empty:
        return page.paragraph(f"No two kept pictures on different sides are {alike}.")
    nearest = found.head(LEAKS)
    rows = [
        [page.quote(one, 60), side, page.quote(other, 60), other_side, str(bits), *map(_yes, facts)]
        for one, side, other, other_side, bits, *facts in nearest.itertuples(index=False)
    ]
    head = ["image", "on", "image", "on"]
    head += ["bits apart", "mirrored", "same address", "a caption in common"]
    keys = nearest[["key", "other_key"]].to_numpy().ravel()
    shown = kept.drop_duplicates("key").set_index("key", drop=False).loc[keys]
    told = f"{len(found):,} pairs of kept pictures on different sides are {alike}. The nearest:"
    return page.paragraph(told) + page.table(head, rows) + pictures.sheet(shown, _side)


def _yes(fact: bool) -> str:
    return "yes" if fact else ""


def _side(row: dict) -> str:
    return f"on {row['split']}"


def _status(row: dict) -> str:
    if row["duplicate_of"]:
        return f"copy of {row['duplicate_of']}"
    return "kept" if row["kept"] else row["reason"]
