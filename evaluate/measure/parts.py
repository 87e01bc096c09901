"""By what held-out pictures are divided: what the curation's tables say of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from curate.filters.config import FiltersConfig
from curate.filters.margins import margins
from curate.run.manifest import read_funnel
from curate.run.provenance import read_config
from evaluate.metrics.slices import LEAST_GROUPS
from finetune.sidecars import GROUP, read_columns

if TYPE_CHECKING:
    import pandas as pd

    from curate.run.manifest import ShardInfo

_ALSO = ("source", "dataset", "width", "height", "bytes")
_PIECES = (10, 5, 4, 3, 2)
_FRACTIONS = {10: "tenth", 5: "fifth", 4: "quarter", 3: "third", 2: "half"}
_ROOM = (
    1.5  # times LEAST_GROUPS: groups that a piece has on average, so that few pieces have too few
)
_MOST_LABELS = 12  # sources that are slices of their own, those with the most pictures


@dataclass
class Parts:
    """The parts that pictures are in.

    Attributes:
        labels: by dimension, the part of each picture [N], in order; missing for one that is in none.
        missing: by dimension, why pictures are not divided by it.
    """

    labels: dict[str, pd.Categorical[Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, dimension: str, found: pd.Categorical[Any] | str) -> None:
        """Labels, or the reason why there are none."""
        if isinstance(found, str):
            self.missing[dimension] = found
        elif len(found.categories) < 2:
            self.missing[dimension] = "it is the same for all pictures"
        else:
            self.labels[dimension] = found


def of_curation(
    curate_dir: Path, shards: Sequence[ShardInfo], keys: Sequence[str], groups: Sequence[str]
) -> Parts:
    """Divide pictures by what a finished curation knows of them.

    Args:
        curate_dir: the curation.
        shards: all of the split that the pictures are of.
        keys: N pictures of these shards. groups: [N] of each.
    """
    filters = _filters(curate_dir)
    more = list(filters.columns) if filters else []
    table = read_table(curate_dir, shards, keys, more)
    cut = read_funnel(curate_dir).get("cut", {}).get("similarity")
    return divide(table, groups, margins(filters, cut, table) if filters else None)


def _filters(curate_dir: Path) -> FiltersConfig | None:
    """The rules of a curation; None where its configuration is of another version."""
    stored = read_config(curate_dir / "config.yaml").get("filters")
    try:
        schema = OmegaConf.structured(FiltersConfig)
        found: Any = OmegaConf.to_object(OmegaConf.merge(schema, stored or {}))
    except (OmegaConfBaseException, ValueError):
        return None
    return found if stored else None


def divide(table: pd.DataFrame, groups: Sequence[str], inside: pd.DataFrame | None) -> Parts:
    """Divide the pictures in every way that the tables allow.

    Args:
        table: one row a picture [N]: ``source``, ``caption``, ``similarity``, ``siblings`` (other pictures of
            its duplicate group in the shards), and perhaps ``dataset``.
        groups: [N] duplicate groups, whose number says how finely pictures can be divided.
        inside: [N, rules] margins, see ``curate.filters.margins``; None where the rules are not known.
    """
    import pandas as pd

    parts, count = Parts(), len(set(groups))
    parts.add("source", _texts(table, "source"))
    if "dataset" in table:
        parts.add("data set", _texts(table, "dataset"))
    words = table["caption"].map(lambda caption: len(str(caption).split()))
    parts.add("caption length", pieces(words, count, "words", most=4))
    parts.add("similarity", pieces(table["similarity"], count))
    alone = np.where(table["siblings"] == 0, "alone", "with siblings")
    parts.add("duplicates", pd.Categorical(alone))
    parts.add("rule margin", _nearest(inside, count))
    return parts


def _texts(table: pd.DataFrame, name: str) -> pd.Categorical[Any] | str:
    """Texts of a column, the most frequent ones."""
    if name not in table or table[name].isna().all():
        return "the shards do not say it"
    import pandas as pd

    return pd.Categorical(table[name], table[name].value_counts().index[:_MOST_LABELS])


def pieces(
    values: pd.Series, groups: int, unit: str = "", most: int = _PIECES[0]
) -> pd.Categorical[Any] | str:
    """Pieces of about equal size, from the lowest values to the highest: tenths, or fewer of fewer groups.

    Args:
        values: [N]; a picture with NaN is in no piece.
        groups: of all pictures.
        unit: of the values, for the labels.
        most: pieces.
    """
    known = values.dropna()
    if not len(known):
        return "it is not known of any picture"
    fitting = (n for n in _PIECES if n <= most and n * _ROOM * LEAST_GROUPS <= groups)
    if (count := next(fitting, 0)) == 0:
        return f"{groups} groups of pictures are too few to divide"
    import pandas as pd

    edges = np.unique(np.quantile(known, np.arange(1, count) / count))
    numbers = pd.Series(np.searchsorted(edges, known, side="left"), index=known.index)
    present = sorted(numbers.unique())
    names = {
        number: _label(place, len(present), known[numbers == number], unit)
        for place, number in enumerate(present)
    }
    return pd.Categorical(numbers.map(names).reindex(values.index), list(names.values()))


def _label(place: int, count: int, values: pd.Series, unit: str) -> str:
    low, high = (f"{value:.3g}" for value in (values.min(), values.max()))
    between = low if low == high else f"{low} to {high}"
    if unit:
        return f"{between} {unit if between != '1' else unit.removesuffix('s')}"
    nth = {1: "2nd", 2: "3rd"}.get(place, f"{place + 1}th")
    name = {0: "lowest", count - 1: "highest"}.get(place, nth)
    piece = _FRACTIONS.get(count, f"of {count}")
    return f"{name} {piece} ({between})"


def _nearest(inside: pd.DataFrame | None, groups: int) -> pd.Categorical[Any] | str:
    """By the margin to the nearest bound, each rule's in standard deviations of what it measures."""
    if inside is None:
        return "the rules of the curation are not known"
    spread = inside.std()
    scaled = inside[spread.index[spread > 0]] / spread[spread > 0]
    if scaled.empty:
        return "no rule of the curation has a bound on what differs between pictures"
    if (scaled.idxmin(axis=1) == "clip_similarity").all():
        return "the nearest bound is the cut on similarity for every picture; see similarity"
    return pieces(scaled.min(axis=1), groups)


def read_table(
    curate_dir: Path, shards: Sequence[ShardInfo], keys: Sequence[str], more: Sequence[str] = ()
) -> pd.DataFrame:
    """What the shards' tables say of ``keys``, one row each in their order, for :func:`divide`.

    Args:
        curate_dir: the curation.
        shards: all of the split that the pictures are of.
        keys: N pictures of these shards.
        more: names of further columns.

    Raises:
        UserError: a table is damaged.
    """
    import pandas as pd

    names = ("key", "caption", "similarity", GROUP, *_ALSO, *more)
    table = pd.concat([read_columns(curate_dir, shard, names).to_pandas() for shard in shards])
    table = table.set_index("key")
    own = table.get(GROUP, pd.Series("", index=table.index)).fillna("")
    own = own.where(own != "", table.index.to_series())
    table["siblings"] = own.map(own.value_counts()) - 1
    found = table.loc[list(keys)].reset_index()
    found["similarity"] = [_first(v) for v in found.get("similarity", [None] * len(found))]
    return found.assign(clip_similarity=found["similarity"])


def _first(values: Any) -> float:
    return float("nan") if values is None or not len(values) or values[0] is None else values[0]
