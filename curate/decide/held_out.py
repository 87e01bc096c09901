"""The table ``split.held_out``: pictures that earlier curations held out, for later ones to hold out again.

Growing data, other filters and other shares may all move a picture to train on which an earlier model was
judged. So a series of curations hands a table on: after each, ``merged(read(TABLE), held_out_table(CURATE_DIR))``
is written for the next. ``frozen`` says how a picture is known again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from curate.decide.config import HELD_OUT, SplitConfig
from curate.run import ledger, parquet
from curate.run.manifest import read_manifest
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

KEY = "split.held_out"
COLUMNS = ("key", "sha256", "split", "pixels_sha256", "phash")
"""Of a picture: its key, the hash of its file, its side, and where known the hash of its pixels, of which 16 digits
are compared, and the perceptual hash; all as text, "" where not known."""

_NEEDED = COLUMNS[:3]
_HEX = {"sha256": r"[0-9a-f]{64}", "pixels_sha256": r"(?:[0-9a-f]{16,64})?", "phash": r"(?:[0-9a-f]{16})?"}  # fmt: skip
_REMEDY = (
    "fetch it from a backup, or make it again from the curations of its series (held_out_table of "
    f"curate.decide.held_out). With {KEY}=null, pictures that they held out may be trained on"
)


def held_out_table(curate_dir: Path) -> pd.DataFrame:
    """The pictures that a finished curation holds out, with ``COLUMNS``, in the order of their keys.

    Raises:
        FileNotFoundError: nothing was curated there, or curation has not finished.
        UserError: the ledger or an annotation is damaged.
    """
    read_manifest(curate_dir)
    asked = [name for name in COLUMNS if name != "pixels_sha256"]
    rows = ledger.read(curate_dir, asked, [("split", "in", HELD_OUT)]).drop_duplicates("key")
    return _as_text(rows.merge(_pixels(curate_dir, set(rows["key"])), "left", ["key", "sha256"]))


def _pixels(curate_dir: Path, keys: set[str]) -> pd.DataFrame:
    """``key, sha256, pixels_sha256`` of some pictures, as they were measured; the ledger does not have them."""
    import pandas as pd

    from curate.annotate.parts import current_parts, read_part

    found = [pd.DataFrame(columns=["key", "sha256", "pixels_sha256"], dtype="str")]
    for path in current_parts(curate_dir / "annotations"):
        part = read_part(path, list(found[0].columns)).to_pandas()
        found.append(part[part["key"].isin(keys)])
    return pd.concat(found).drop_duplicates(["key", "sha256"])


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """All rows of ``old``, and those of ``new`` whose file it does not have: what was held out first stays so."""
    import pandas as pd

    return _as_text(pd.concat([old, new]).drop_duplicates("sha256"))


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table, atomically and with its checksum; the same rows give the same bytes."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    parquet.write_table(path, pa.Table.from_pandas(_as_text(table), schema, preserve_index=False))


def named_in(config: SplitConfig) -> pd.DataFrame | None:
    """The table that the settings name; None where they name none.

    Raises:
        FileNotFoundError, UserError: see ``read``.
    """
    return None if config.held_out is None else read(Path(config.held_out).expanduser())


def read(path: Path) -> pd.DataFrame:
    """A table of held-out pictures, with ``COLUMNS``; other columns are left out.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, or no such table.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{KEY}={path}: no such file (looked for {path.resolve()}); type {KEY}=FILE, a table that an earlier "
            f"curation of the series left, or {KEY}=null for the first of a series"
        )
    import pandas as pd

    with parquet.reporting_damage(path, _REMEDY):
        table = pd.read_parquet(path)
    if missing := [name for name in _NEEDED if name not in table]:
        raise UserError(
            f"{KEY}={path} is no table of held-out pictures: it lacks {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns)) or 'no columns'}. {_wanted()}"
        )
    table = _as_text(table)
    _refuse(path, "split", table["split"], table["split"].isin(HELD_OUT))
    _refuse(path, "key", table["key"], table["key"] != "")
    for name, digits in _HEX.items():
        _refuse(path, name, table[name], table[name].str.fullmatch(digits))
    return table


def _refuse(path: Path, name: str, values: pd.Series, right: pd.Series) -> None:
    wrong = values[~right.astype(bool)]
    if len(wrong):
        raise UserError(
            f"{KEY}={path}: {wrong.iloc[0]!r} in column {name} of row {wrong.index[0]} is wrong. {_wanted()}"
        )


def _wanted() -> str:
    return (
        f"It needs the columns key, sha256 (64 hex digits of the file) and split ({' or '.join(HELD_OUT)}), and may "
        f"have pixels_sha256 and phash. To do without, type {KEY}=null"
    )


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """``COLUMNS`` alone, in the order of keys and files, rows numbered from 0; absent and missing values are ""."""
    rows = table.reindex(columns=list(COLUMNS)).astype("object")
    rows = rows.where(rows.notna(), "").astype("str")
    return rows.sort_values(["key", "sha256", "split"], ignore_index=True)


def digest(table: pd.DataFrame) -> str:
    """64 hex digits that stand for the rows, in whatever order they came."""
    rows = _as_text(table).to_numpy().tolist()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
