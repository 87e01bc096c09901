"""The command ``python -m curate.explain``: what became of a pair, and why."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import cli, folder, ledger, named_pictures, reconsider
from curate.run.manifest import read_funnel
from curate.run.next_command import named
from curate.run.printable import one_line
from curate.run.removals import REASON
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

NEAR_KEYS = 5
COPIES_SHOWN = 10  # other pictures of a duplicate group
_WIDTH = 12  # of a line's label
_HASHES = {"phash": "its hash", "phash_mirrored": "its mirror image's hash"}

# These have lines of their own; the other columns are measures and the source's own.
_WITH_OWN_LINES = {*ledger.COLUMNS, ledger.HELD_OUT_BY}


def main() -> None:
    """Print the story of each key."""
    parser = folder.parser(
        "explain", "What became of a pair: kept, dropped by which rule, or unreadable."
    )
    parser.add_argument(
        "keys",
        metavar="KEY|FILE",
        nargs="+",
        help="a key as the ledger, shards and reports say, a picture's file or its name, or a sha256",
    )
    arguments = parser.parse_args()
    curate_dir = folder.curate_dir(arguments.run)
    folder.say_if_unfinished(curate_dir)
    for story in explain(curate_dir, arguments.keys):
        print(story, end="\n\n")


def explain(curate_dir: Path, named: list[str]) -> Iterator[str]:
    """One text for each picture that is named by its key or its file (see ``named_pictures``) and that the ledger has.

    Raises:
        UserError: it lacks some of them; raised after the others' texts, with similar keys.
        FileNotFoundError: the run has no ledger.
    """
    rows = ledger.read(curate_dir, filters=[("key", "in", named)])
    keys, unknown = _keys(curate_dir, named, set(rows["key"]))
    if not set(keys) <= set(rows["key"]):
        rows = ledger.read(curate_dir, filters=[("key", "in", keys)])
    present = set(rows["key"])
    cut = read_funnel(curate_dir).get("cut", {})
    groups = sorted(set(rows["duplicate_group"]) - {""})
    members = _group_members(curate_dir, groups) if groups else rows[:0]
    doubts = reconsider.reasons(curate_dir, present)
    for key in keys:
        story = _story(curate_dir, rows[rows["key"] == key], members, cut)
        yield "\n".join([*story, *(_line("reconsider", doubt) for doubt in doubts[key])])
    if unknown:
        raise UserError(_unknown(curate_dir, unknown))


def _keys(curate_dir: Path, named: list[str], present: set[str]) -> tuple[list[str], list[str]]:
    """The keys of what is named, each once, and the texts that name nothing; ``present`` are those known as keys."""
    keys, unknown = [], []
    for text in named:
        found = [text]
        if text not in present:
            found = named_pictures.find(text, partial(ledger.read, curate_dir))["key"].tolist()
        keys += found
        unknown += [] if found else [text]
    return list(dict.fromkeys(keys)), unknown


def _group_members(curate_dir: Path, groups: list[str]) -> pd.DataFrame:
    """A row for each picture of some duplicate groups."""
    columns = [
        "key",
        "duplicate_group",
        "copy_group",
        "phash",
        "phash_mirrored",
        "status",
        "reason",
    ]
    found = ledger.read(curate_dir, columns, [("duplicate_group", "in", groups)])
    return found.drop_duplicates("key")


def _unknown(curate_dir: Path, keys: list[str]) -> str:
    """All unknown keys; similar ones are searched for the first only, as that takes seconds."""
    rows = ledger.read(curate_dir, ["key", "file_name"]).drop_duplicates("key")
    known = rows["key"].tolist()
    near = [key for key in known if key.startswith(keys[0])]
    near = near or get_close_matches(keys[0], known, NEAR_KEYS)
    if "file_name" in rows:  # of a file in another folder
        same = rows["file_name"].map(lambda name: Path(str(name)).name == Path(keys[0]).name)
        near = rows.loc[same, "key"].tolist() or near
    shown = ", ".join(near[:NEAR_KEYS])
    hint = f"near ones: {shown}" if near else f"it begins with: {', '.join(known[:3])}"
    others = f"; nor {', '.join(map(repr, keys[1:]))}" if keys[1:] else ""
    return f"the ledger of {curate_dir.parent} has no key and no file {keys[0]!r}; {hint}{others}"


def _story(
    curate_dir: Path, rows: pd.DataFrame, members: pd.DataFrame, cut: dict[str, Any]
) -> Iterator[str]:
    first = rows.iloc[0]
    kept = int(rows["kept"].sum())
    verdict = f"kept with {kept} of {len(rows)} captions" if kept else first["status"]
    yield one_line(f"{first['key']} from {first['source']}: {verdict}")
    if first["width"]:
        yield _line("picture", f"{first['width']} x {first['height']} px, {first['format']}")
    yield _line("file", f"{first['bytes']} bytes, sha256 {first['sha256'] or 'unknown'}")
    for _, row in rows.iterrows():
        yield from _caption(row, cut)
    yield from _duplicates(rows, members)
    if kept:
        in_shard = rows[rows["kept"]].iloc[0]
        yield _line("split", f"{in_shard['split']}{_why_held_out(in_shard)}")
        yield from _members(curate_dir, first["key"], in_shard["shard"])
    for name in sorted(set(rows.columns) - _WITH_OWN_LINES):
        values = rows[name].dropna().map(_plain).unique()
        if shown := [value for value in values if value]:
            yield _line(name, " | ".join(shown))


def _line(label: str, text: str) -> str:
    return f"  {one_line(label):<{_WIDTH}} {one_line(text)}"


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _caption(row: pd.Series, cut: dict[str, Any]) -> Iterator[str]:
    import numpy as np

    yield _line(
        f"caption {row['caption_index']}",
        f"{row['caption']!r}: {ledger.why(row) or 'kept'}",
    )
    similarity, least = row["clip_similarity"], cut.get("similarity")
    if similarity != similarity:
        yield _line("", "similarity not measured")
        return
    against = "no cut"
    if least is not None:
        side = "at or above" if similarity >= np.float32(least) else "below"
        against = f"{side} the cut {least:.4f} ({cut['by']})"
    yield _line("", f"similarity {similarity:.4f} by {row['clip_model']}, {against}")


def _duplicates(rows: pd.DataFrame, members: pd.DataFrame) -> Iterator[str]:
    first = rows.iloc[0]
    reasons = dict(zip(members["key"], members["reason"], strict=True))
    for keeper in rows.loc[rows["duplicate_of"] != "", "duplicate_of"].unique():
        now = "was removed later" if reasons.get(keeper) == REASON else "is kept instead"
        yield _line("copy of", f"{keeper}, which {now}")
    same = members[members["duplicate_group"] == first["duplicate_group"]]
    others = same[same["key"] != first["key"]]
    if not len(others):
        return
    yield _line("group", f"{first['duplicate_group']}: {len(same)} pictures, all on one side")
    for _, other in others.head(COPIES_SHOWN).iterrows():
        bits, whose = min(
            (_bits(first["phash"], other[name]), whose)
            for name, whose in _HASHES.items()
            if isinstance(other.get(name), str)  # older ledgers have no mirrored hash
        )
        sibling = ", sibling" if other.get("copy_group") != first.get("copy_group") else ""
        differs = f"{whose} differs in {bits} of 64 bits"
        yield _line("", f"{other['key']}: {other['status']}{sibling}, {differs}")
    if len(others) > COPIES_SHOWN:
        yield _line("", f"and {len(others) - COPIES_SHOWN} more")


def _bits(phash: str, other: str) -> int:
    return (int(phash, 16) ^ int(other, 16)).bit_count()


def _why_held_out(row: pd.Series) -> str:
    """Where an earlier curation is the reason, and not the hash; other ledgers lack the column."""
    by = row.get(ledger.HELD_OUT_BY)
    if not isinstance(by, str) or not by:
        return ""
    if by == row["key"]:
        return ", as an earlier curation held it out (split.held_out)"
    return f", as {by} is in its group, which an earlier curation held out (split.held_out)"


def _members(curate_dir: Path, key: str, shard: str) -> Iterator[str]:
    """Where in the tar its files are, by byte offset."""
    yield _line("shard", shard)
    path, verify = curate_dir / shard, f"python -m curate.verify {named(curate_dir.parent)}"
    if not path.is_file():
        yield _line("", f"which is missing; {verify} says what else is")
        return
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.partition(".")[0] == key:
                    yield _line("", f"{member.name}: {member.size} bytes at {member.offset_data}")
    except tarfile.TarError as error:
        yield _line("", f"which is damaged ({error}); {verify} says what else is")


if __name__ == "__main__":
    cli.run(main)
