"""The section on duplicates: sizes of groups of copies, copies dropped and kept, near copies across splits."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from curate.decide.split import leaks
from curate.report import counts, page
from curate.report.pictures import Pictures

SIZES = ((2, 2), (3, 3), (4, 4), (5, 9), (10, 99), (100, None))  # images per group, ends included
GROUPS, OF_GROUP = 6, 4
LEAK_BITS, LEAKS = 8, 6  # most hash bits (of 64) in which near copies differ; pairs shown
MOST_COMPARED = 200_000  # kept images; comparing their hashes takes five seconds
_PER_GROUP = 'ledger.query("copy_group != \'\'").groupby("copy_group")["key"].nunique()'


def section(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The groups of copies, then near copies in different splits; one sentence where there are none."""
    return (
        _groups(ledger, pictures)
        + page.heading("Near copies across splits")
        + _leaks(ledger, pictures)
    )


def _groups(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    images = ledger.loc[ledger["copy_group"] != "", ["key", "copy_group", "kept"]]
    sizes = images.drop_duplicates("key")["copy_group"].value_counts(sort=False)
    sizes = sizes[sizes > 1]
    if sizes.empty:
        return page.paragraph("No two decoded images are in the same group of copies.")
    largest = sizes.reset_index().sort_values(
        ["count", "copy_group"], ascending=[False, True], ignore_index=True
    )
    return Markup("").join(
        [
            _table(sizes),
            _copies(ledger),
            page.heading("The largest groups"),
            _largest([str(name) for name in largest["copy_group"][:GROUPS]], ledger, pictures),
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


def _copies(ledger: pd.DataFrame) -> Markup:
    """How many pairs were dropped as duplicates, and how many kept images share a group."""
    dropped = counts.pairs((ledger["duplicate_of"] != "").sum(), "duplicate_of != ''")
    kept = ledger.loc[ledger["kept"], ["key", "copy_group"]].drop_duplicates("key")
    again = kept.loc[kept["copy_group"] != "", "copy_group"].duplicated().sum()
    expression = (
        'ledger.query("kept and copy_group != \'\'").drop_duplicates("key")'
        '["copy_group"].duplicated().sum()'
    )
    return page.paragraph(
        Markup(
            "Pairs dropped as duplicates of a kept image: {}. Kept images beyond the first of their "
            "group, which a model memorises sooner: {}."
        ).format(dropped, page.Count(int(again), expression))
    )


def _largest(names: list[str], ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The groups in a table and, of each, some images: the kept ones first, if any."""
    rows, shown = [], []
    for name in names:
        pairs, query = ledger[ledger["copy_group"] == name], f"copy_group == {name!r}"
        images = pairs.sort_values("kept", ascending=False, kind="stable").drop_duplicates("key")
        first = page.quote(images["key"].iloc[0], 60)
        rows.append([first, counts.images(len(images), query), counts.pairs(len(pairs), query)])
        shown.append(images.head(OF_GROUP))
    table = counts.table(["first image", "images", "pairs"], rows)
    return table + pictures.sheet(pd.concat(shown), _status)


def leaks_are_listed(ledger: pd.DataFrame) -> bool:
    """Whether there are few enough kept images to compare those of different splits."""
    return ledger.loc[ledger["kept"], "key"].nunique() <= MOST_COMPARED


def _leaks(ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    """The nearest pairs of kept images in different splits, next to each other."""
    kept = ledger[ledger["kept"]]
    if not leaks_are_listed(ledger):
        skipped = (
            f"Not measured: near copies across splits, because {kept['key'].nunique():,} kept images are too many to "
            f"compare here; in Python, call leaks(ledger, {LEAK_BITS}) of curate.decide.split."
        )
        return page.paragraph(skipped, "warning")
    found = leaks(kept, LEAK_BITS)
    alike = f"are near copies (at most {LEAK_BITS} of 64 hash bits differ) or have the same URL"
    if found.empty:
        return page.paragraph(f"No two kept images in different splits {alike}.")
    nearest = found.head(LEAKS)
    rows = [
        [page.quote(one, 60), side, page.quote(other, 60), other_side, str(bits), *map(_yes, facts)]
        for one, side, other, other_side, bits, *facts in nearest.itertuples(index=False)
    ]
    head = ["image", "split", "other image", "split"]
    head += ["bits that differ", "mirrored", "same URL", "same caption"]
    keys = nearest[["key", "other_key"]].to_numpy().ravel()
    shown = kept.drop_duplicates("key").set_index("key", drop=False).loc[keys]
    text = f"{len(found):,} pairs of kept images in different splits {alike}. The nearest:"
    return page.paragraph(text) + page.table(head, rows) + pictures.sheet(shown, _side)


def _yes(fact: bool) -> str:
    return "yes" if fact else ""


def _side(row: dict) -> str:
    return f"in {row['split']}"


def _status(row: dict) -> str:
    if row["duplicate_of"]:
        return f"duplicate of {row['duplicate_of']}"
    return "kept" if row["kept"] else row["reason"]
