"""The section on duplicates: sizes of groups of copies, copies dropped and kept, near copies across splits."""

from __future__ import annotations

from markupsafe import Markup

from curate.decide.split import leaks
from curate.report import counts, page
from curate.report.pictures import Pictures
from curate.run.ledger_table import LedgerTable

SIZES = ((2, 2), (3, 3), (4, 4), (5, 9), (10, 99), (100, None))  # images per group, ends included
GROUPS, OF_GROUP = 6, 4
LEAK_BITS, LEAKS = 8, 6  # most hash bits (of 64) in which near copies differ; pairs shown
MOST_COMPARED = 200_000  # kept images; comparing their hashes takes five seconds
_COMPARED = (
    "key",
    "caption",
    "kept",
    "split",
    "phash",
    "phash_mirrored",
    "url",
)  # of a pair, by ``leaks``
_PER_GROUP = 'ledger.query("copy_group != \'\'").groupby("copy_group")["key"].nunique()'


def section(ledger: LedgerTable, pictures: Pictures) -> Markup:
    """The groups of copies, then near copies in different splits; one sentence where there are none."""
    return (
        _groups(ledger, pictures)
        + page.heading("Near copies across splits")
        + _leaks(ledger, pictures)
    )


def _groups(ledger: LedgerTable, pictures: Pictures) -> Markup:
    ledger.connection.sql(
        # Images are counted in few groups alone, since each count of different ones has a table of its own.
        "CREATE OR REPLACE TEMP TABLE report_copies AS WITH several AS ("
        "SELECT copy_group AS name FROM ledger WHERE copy_group != '' "
        "GROUP BY name HAVING min(image) != max(image)) "
        "SELECT copy_group AS name, count(DISTINCT image) AS images FROM ledger "
        "WHERE copy_group IN (FROM several) GROUP BY name"
    )
    sizes = ledger.tuples(
        "SELECT images, count(*) FROM report_copies GROUP BY images ORDER BY images"
    )
    if not sizes:
        return page.paragraph("No two decoded images are in the same group of copies.")
    largest = ledger.tuples(
        f"SELECT name FROM report_copies ORDER BY images DESC, name LIMIT {GROUPS}"
    )
    return Markup("").join(
        [
            _table(sizes),
            _copies(ledger),
            page.heading("The largest groups"),
            _largest([name for (name,) in largest], ledger, pictures),
        ]
    )


def _table(sizes: list[tuple[int, int]]) -> Markup:
    """A row for each of ``SIZES``, from (images of a group, groups of so many)."""
    rows = []
    for low, high in SIZES:
        found = [each for each in sizes if low <= each[0] and (high is None or each[0] <= high)]
        if not found:
            continue
        label = f"{low} and more" if high is None else f"{low}–{high}" if high > low else f"{low}"
        within = f"{_PER_GROUP}.loc[lambda n: (n >= {low}){f' & (n <= {high})' if high else ''}]"
        rows.append(
            [
                Markup("{}").format(label),
                page.Count(sum(groups for _, groups in found), f"len({within})"),
                page.Count(sum(images * groups for images, groups in found), f"{within}.sum()"),
            ]
        )
    return counts.table(["images in the group", "groups", "images"], rows)


def _copies(ledger: LedgerTable) -> Markup:
    """How many pairs were dropped as duplicates, and how many kept images share a group."""
    dropped = counts.pairs(ledger.count("duplicate_of != ''"), "duplicate_of != ''")
    again = ledger.value(
        "SELECT count(DISTINCT image) - count(DISTINCT copy_group) FROM ledger "
        "WHERE kept AND copy_group IN (SELECT name FROM report_copies)"
    )
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


def _largest(names: list[str], ledger: LedgerTable, pictures: Pictures) -> Markup:
    """The groups in a table and, of each, some images: the kept ones first, if any."""
    rows, shown = [], list[int]()
    for name in names:
        query = f"copy_group == {name!r}"
        pairs, images = ledger.count("copy_group = ?", name), ledger.images("copy_group = ?", name)
        of_group = ledger.tuples(
            "SELECT coalesce(min(row) FILTER (kept), min(row)) AS first FROM ledger WHERE copy_group = ? "
            f"GROUP BY image ORDER BY bool_or(kept) DESC, first LIMIT {OF_GROUP}",
            name,
        )
        numbers = [number for (number,) in of_group]
        first = page.quote(ledger.rows(numbers)["key"].iloc[0], 60)
        rows.append([first, counts.images(images, query), counts.pairs(pairs, query)])
        shown += numbers
    table = counts.table(["first image", "images", "pairs"], rows)
    return table + pictures.sheet(ledger.rows(shown), _status)


def leaks_are_listed(ledger: LedgerTable) -> bool:
    """Whether there are few enough kept images to compare those of different splits."""
    return ledger.images("kept") <= MOST_COMPARED


def _leaks(ledger: LedgerTable, pictures: Pictures) -> Markup:
    """The nearest pairs of kept images in different splits, next to each other."""
    if not leaks_are_listed(ledger):
        skipped = (
            f"Not measured: near copies across splits, because {ledger.images('kept'):,} kept images are too many to "
            f"compare here; in Python, call leaks(ledger, {LEAK_BITS}) of curate.decide.split."
        )
        return page.paragraph(skipped, "warning")
    named = [ledger.column(name) for name in _COMPARED if name in ledger]
    kept = ledger.frame(f"SELECT row, {', '.join(named)} FROM ledger WHERE kept ORDER BY row")
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
    shown = ledger.rows(kept.drop_duplicates("key").set_index("key").loc[keys, "row"].tolist())
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
