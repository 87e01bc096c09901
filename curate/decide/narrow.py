"""Narrow: what deciding needs of annotation parts as numbers and hashes, see ``tables``, and the rules of rows.

A task takes some parts that follow each other, so that many small parts do not become as many small files. Each row
is judged by itself here, by all rules that need no other row; what compares rows comes later, in ``judgement``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate.embeddings import Embeddings
from curate.annotate.frame import frame_of
from curate.annotate.layout import Layout
from curate.annotate.spec import AnnotationSpec
from curate.clip.config import HeadConfig
from curate.clip.heads import load_head
from curate.decide import draw
from curate.decide.caption_words import word_hashes
from curate.decide.looks import Looks, numbers
from curate.decide.tables import IMAGES, PAIRS, PASSES, UNREADABLE, WORDS
from curate.filters import companions
from curate.filters.columns import Bound, Exactness
from curate.filters.config import FiltersConfig
from curate.filters.rule import Rule
from curate.filters.rules import rules_of_rows
from curate.run.engine.tasks import Progress, Worker
from curate.run.files import atomic_write
from curate.run.ledger import ROWS_PER_PART
from curate.run.removals import REASON, Removals

HEADS = "heads"  # beside ``TABLES``: the scores of ``heads.NAME``, a row for each pair

# No rule looks at these, and copying a million strings for each rule takes longer than the rules.
_NOT_JUDGED = ["source", "location", "version", "format", "sha256", "error", "clip_model"]

Head = Callable[[np.ndarray], np.ndarray]
"""Embeddings (N, D) float32 of unit length => scores (N,) float32."""


@dataclass(frozen=True, slots=True)
class NarrowTask:
    """Some annotation parts that follow each other.

    Attributes:
        number: of the task, the name of its files.
        parts: in input order.
        start: the number of their first row among all.
        stop: that of the row after their last.
    """

    number: int
    parts: tuple[Path, ...]
    start: int
    stop: int

    def file(self, folder: Path, table: str) -> Path:
        """Its file of one of ``TABLES``, or of ``HEADS``."""
        return folder / table / f"{self.number:05d}.parquet"


@dataclass(slots=True)
class Seen:
    """What the rows of a task look like, as far as the judgement of others depends on it.

    Attributes:
        companions: what is wrong with companions => how many pairs the rule on it drops, which may be none.
        whole: see ``filters.columns.Exactness``.
    """

    companions: Counter[str] = field(default_factory=Counter)
    whole: dict[Bound, bool] = field(default_factory=dict)


def tasks_of(parts: Sequence[Path], layout: Layout) -> list[NarrowTask]:
    """The parts in tasks of about as many rows as a part of the ledger."""
    tasks: list[NarrowTask] = []
    chosen: list[Path] = []
    start = stop = 0
    for path, rows in zip(parts, layout.rows, strict=True):
        if chosen and stop + rows - start > ROWS_PER_PART:
            tasks.append(NarrowTask(len(tasks), tuple(chosen), start, stop))
            chosen, start = [], stop
        chosen.append(path)
        stop += rows
    if chosen:
        tasks.append(NarrowTask(len(tasks), tuple(chosen), start, stop))
    return tasks


@contextmanager
def worker(
    folder: Path,
    layout: Layout,
    spec: AnnotationSpec,
    heads: Mapping[str, HeadConfig],
    filters: FiltersConfig,
    removals: Removals,
    inexact: frozenset[Bound] = frozenset(),
) -> Iterator[Worker]:
    """A worker that takes a ``NarrowTask``, writes its files and gives what was ``Seen``.

    Raises, with the task:
        UserError: a part is damaged, a head cannot be read or belongs to another CLIP, or a rule cannot be
            applied.
    """
    loaded = {f"head_{name}": load_head(head) for name, head in heads.items()}

    def carry_out(task: NarrowTask, progress: Progress) -> Seen:
        seen = Seen()
        frame = frame_of(task.parts, layout, spec)
        scores = _scores(frame, task.parts, loaded)
        rules = rules_in_order(filters, removals, Exactness(inexact, seen.whole))
        tables = narrow(frame.assign(**scores), task.start, rules, seen)
        if scores:
            tables[HEADS] = pa.table(scores)
        for name, table in tables.items():
            with atomic_write(task.file(folder, name), sync=False) as stream:
                pq.write_table(table, stream)
        progress(len(frame))
        return seen

    yield carry_out


def _scores(
    pairs: pd.DataFrame, parts: Sequence[Path], heads: Mapping[str, Head]
) -> dict[str, np.ndarray]:
    """The heads' scores by column, (N,): an image's on all of its rows; NaN if it was not measured."""
    if not heads:
        return {}
    scores = {name: np.full(len(pairs), np.nan, np.float32) for name in heads}
    for rows, vectors in Embeddings(parts).image_blocks():
        for name, head in heads.items():
            scores[name][rows] = head(vectors)
    first_rows = _first_rows(pairs)
    unmeasured = (pairs["pixels_sha256"] == "").to_numpy()
    return {
        name: np.where(unmeasured, np.float32("nan"), found[first_rows])
        for name, found in scores.items()
    }


def _first_rows(pairs: pd.DataFrame) -> np.ndarray:
    """For each row (N,) the position of its image's first one."""
    return np.arange(len(pairs)) - pairs["caption_index"].to_numpy(np.int64)


def rules_in_order(
    filters: FiltersConfig, removals: Removals, exactness: Exactness | None = None
) -> list[Rule]:
    """The rules of rows, in the order in which they are applied; their place from 1 is a pair's ``code``."""
    removed = [Rule(REASON, REASON, removals.drops)] if removals.records else []
    return [*removed, companions.rule(), *rules_of_rows(filters, exactness)]


def narrow(
    frame: pd.DataFrame, start: int, rules: Sequence[Rule], seen: Seen
) -> dict[str, pa.Table]:
    """The rows of ``TABLES`` for some annotations.

    Args:
        frame: of ``frame_of``, with the columns ``head_<name>``.
        start: the number of its first row among all.
        rules: of ``rules_in_order``.
        seen: what is noted of these rows.
    """
    row = start + np.arange(len(frame))
    first = start + _first_rows(frame)
    code = _codes(frame, rules)
    errors = companions.errors(frame)
    place = 1 + [rule.reason for rule in rules].index(companions.ANY.reason)
    seen.companions.update({error: 0 for error in errors.unique() if error})
    seen.companions.update(errors[code == place].value_counts().to_dict())
    pairs = {
        "row": row,
        "image": first,
        "key": frame["key"],
        "caption": [_digest(caption) for caption in frame["caption"]],
        "code": code,
        "similarity": pa.array(frame["clip_similarity"].to_numpy(np.float32), from_pandas=True),
        "number": draw.pair_numbers(frame["key"], frame["caption_index"].to_numpy()),
    }
    is_first = row == first
    images = _images(frame[is_first], row[is_first])
    decoded = (frame["pixels_sha256"] != "").to_numpy()
    words = _words(frame.loc[decoded, "caption"], row[decoded], first[decoded])
    return {
        "pairs": pa.table({name: _column(values) for name, values in pairs.items()}, PAIRS),
        "images": images,
        "words": words,
    }


def _column(values: object) -> pa.Array:
    return pa.array(values, from_pandas=True) if isinstance(values, pd.Series) else values  # type: ignore[return-value]


def _codes(frame: pd.DataFrame, rules: Sequence[Rule]) -> np.ndarray:
    """For each row (N,) int16 ``UNREADABLE``, or the place of the first rule that drops it, or ``PASSES``."""
    unreadable = (frame["error"] != "").to_numpy()
    codes = np.where(unreadable, np.int16(UNREADABLE), np.int16(PASSES))
    judged = frame.drop(columns=_NOT_JUDGED)
    left = judged[~unreadable] if unreadable.any() else judged
    for place, rule in enumerate(rules, start=1):
        # A removal is by the hash of a file, which no other rule looks at.
        seen = frame.loc[left.index] if rule.name == REASON else left
        drops = rule.drops(seen).to_numpy(bool)
        if drops.any():
            codes[left.index[drops]] = place
            left = left[~drops]
    return codes


def _images(pictures: pd.DataFrame, rows: np.ndarray) -> pa.Table:
    """The table of pictures; ``pictures`` has the first row of each, and ``rows`` their numbers."""
    count = len(pictures)
    decoded = (pictures["pixels_sha256"] != "").to_numpy()
    there = pictures[decoded]
    looks = np.split(Looks.both_ways(there).names(), 2)
    measured = {
        "pixels": numbers(there["pixels_sha256"].str.slice(0, 16)),
        "phash": numbers(there["phash"]),
        "phash_mirrored": numbers(there["phash_mirrored"]),
        "look": looks[0],
        "look_mirrored": looks[1],
    }
    area = pictures["width"].astype("int64") * pictures["height"].astype("int64")
    columns: dict[str, object] = {
        "image": rows,
        "key": _column(pictures["key"]),
        "number": draw.pair_numbers(pictures["key"], np.zeros(count, np.int64)),
        "area": area.to_numpy(),
        "sha256": _column(pictures["sha256"]),
    }
    for name, values in measured.items():
        spread = np.zeros(count, np.uint64)
        spread[decoded] = values
        columns[name] = pa.array(spread, mask=~decoded)
    thumbnails = pictures["thumbnail"].to_numpy(object)
    columns["thumbnail"] = [
        value if known else None for value, known in zip(thumbnails, decoded, strict=True)
    ]
    columns["given_group"] = _given(pictures)
    return pa.table(columns, IMAGES)


def _given(pictures: pd.DataFrame) -> pa.Array:
    """What the source says that each picture shows, such as a photo's id; null for nothing."""
    if "group" not in pictures:
        return pa.nulls(len(pictures), pa.string())
    given = pictures["group"]
    return pa.array(given.where(given.notna() & (given != ""), None), pa.string(), from_pandas=True)


def _words(captions: pd.Series, rows: np.ndarray, images: np.ndarray) -> pa.Table:
    """The different words of N captions; ``rows`` (N,) has the number of each, ``images`` (N,) its picture's."""
    place, word = word_hashes(captions.fillna("").tolist())
    return pa.table({"row": rows[place], "image": images[place], "word": word}, WORDS)


def _digest(caption: str) -> bytes:
    """128 bits of a hash of a caption."""
    return blake2b(caption.encode(errors="surrogatepass"), digest_size=16).digest()
