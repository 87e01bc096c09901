"""Images that count as the same: how many there are, how many stay, and the largest groups."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from curate import page
from curate.report import counts
from curate.report.pictures import Pictures

SIZES = ((2, 2), (3, 3), (4, 4), (5, 9), (10, 99), (100, None))  # images of a group, ends included
GROUPS, OF_GROUP = 6, 4
_PER_GROUP = 'ledger.query("duplicate_group != \'\'").groupby("duplicate_group")["key"].nunique()'


def section(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The table of sizes and the sheet of the largest groups; one sentence where there are none."""
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


def _status(row: dict) -> str:
    if row["duplicate_of"]:
        return f"copy of {row['duplicate_of']}"
    return "kept" if row["kept"] else row["reason"]
