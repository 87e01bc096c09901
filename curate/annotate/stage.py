"""Measure every pair once, in parts that a later run finds again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.annotate import rejects
from curate.annotate.cache import AnnotationCache
from curate.annotate.config import AnnotateConfig
from curate.annotate.hash_index import HashIndex, name_of, names_of
from curate.annotate.measurer import Measurer
from curate.annotate.parts import FORMAT, LIST, METADATA, part_head, read_part
from curate.annotate.spec import AnnotationSpec
from curate.annotate.store import SharedStore
from curate.annotate.table import captions_of
from curate.clip.scorer import ClipScorer
from curate.measures.unreadable import CANNOT_BE_READ
from curate.readers.candidate import Candidate
from curate.readers.source import Source
from curate.run import parquet
from curate.run.companions import ERROR
from curate.run.files import remove_parts, write_certified
from curate.run.progress import Bar, count_done
from curate.run.schema import UserError

# The rows of pairs that would have been scored, had they passed the prefilter, and what decides it.
_KEPT_OUT = (
    pc.field("has_caption")
    & (pc.field("caption") != "")
    & (pc.field("error") == "")
    & pc.field("clip_similarity").is_null()
)
_PREFILTERED = ["has_caption", "caption", "width", "height", "bytes", "error", "clip_similarity"]


@dataclass(frozen=True, slots=True)
class Annotations:
    """The parts in input order, and how many pairs were listed."""

    parts: list[Path]
    pairs: int


def annotate(
    source: Source,
    folder: Path,
    config: AnnotateConfig,
    spec: AnnotationSpec,
    load_scorer: Callable[[], ClipScorer],
    shared: Callable[[], AbstractContextManager[SharedStore]] | None = None,
) -> Annotations:
    """Measure all candidates of ``source`` in one pass, a part at a time.

    The name of a part says what it was measured from; images that moved to another part are found by
    their content.

    Args:
        source: the data set.
        folder: for the parts; those of earlier runs are used.
        config: how the pass is cut into parts.
        spec: what to measure.
        load_scorer: the CLIP; called when something needs it, and then often, so it should remember.
        shared: opens the measurements of other runs; called when the folder lacks something. What they have
            is used, and what is measured is added to them. The parts are the same as without.

    Raises:
        UserError: two images share a key, a larger share of images in a row than
            ``config.max_reject_rate`` is unreadable, or a part of an earlier release, which has no
            checksum, is damaged behind an intact footer.
    """
    remove_parts(folder)
    parquet.check_ahead(sorted(folder.glob("part-*.parquet")))
    paths: list[Path] = []
    keys, pairs = HashIndex(), 0
    counted = rejects.Rejects(config.max_reject_rate)
    with (
        Bar(total=source.total, desc="annotate", unit="img") as bar,
        ThreadPoolExecutor(config.workers) as pool,
        ExitStack() as stack,
    ):

        @cache
        def measurer() -> Measurer:
            store = stack.enter_context(shared()) if shared else None
            return Measurer(_open_cache(folder, spec), spec, source.load, load_scorer, pool, store)

        for chunk in _chunks(source.candidates(), config.images_per_part):
            _check_keys(chunk, keys)
            path = folder / f"part-{len(paths):05d}-{_digest(chunk, spec)}.parquet"
            if path.is_file() and not part_head(path):
                Bar.write(f"annotations/{path.name} is damaged; it is measured again")
            if not _is_done(path, spec):
                part = _with_head(measurer().measure(chunk, bar.update), spec)
                parquet.write_table(path, part)
                measurer().keep(path, part)
            else:
                part = read_part(path, rejects.COLUMNS)
                count_done(bar, len(chunk))
            counted.add(path, part)
            paths.append(path)
            pairs += sum(len(captions_of(candidate)) for candidate in chunk)
    counted.finish()
    write_certified(folder / LIST, {"parts": [path.name for path in paths]})
    _remove_superseded(folder, paths, keys, spec)
    return Annotations(paths, pairs)


def _open_cache(folder: Path, spec: AnnotationSpec) -> AnnotationCache:
    """The cache over all parts in ``folder`` of the same format and CLIP."""
    found = AnnotationCache(spec.measures)
    for path in sorted(folder.glob("part-*.parquet")):
        head = part_head(path)
        if (head.get("format"), head.get("clip_model")) == (FORMAT, spec.clip_model):
            found.add_file(path)
    return found


def _remove_superseded(
    folder: Path, paths: list[Path], keys: HashIndex, spec: AnnotationSpec
) -> None:
    """Delete earlier parts all of whose images are in this pass.

    Parts of another CLIP stay, so do those with images outside a trial's selection, and damaged ones,
    of which nobody can tell what they held.
    """
    for path in set(folder.glob("part-*.parquet")) - set(paths):
        head = part_head(path)
        is_current = head.get("format") == FORMAT
        if not head or (is_current and head.get("clip_model") != spec.clip_model):
            continue
        rows = read_part(path, ["key"])["key"].unique().to_pylist()
        if all(keys.find(name_of(key)) is not None for key in rows):
            path.unlink()


def _chunks(candidates: Iterator[Candidate], size: int) -> Iterator[list[Candidate]]:
    while chunk := list(islice(candidates, size)):
        yield chunk


def _check_keys(chunk: list[Candidate], seen: HashIndex) -> None:
    names = names_of([(candidate.key,) for candidate in chunk])
    here: set[int] = set()
    for candidate, name in zip(chunk, names.tolist(), strict=True):
        if name in here or seen.find(name) is not None:
            raise UserError(
                f"two images of this data set share the key {candidate.key!r}; rename one of them"
            )
        here.add(name)
    seen.add(names, np.zeros(len(names), np.int64))


def _digest(chunk: list[Candidate], spec: AnnotationSpec) -> str:
    """16 hex digits that change with what a part holds, but for the effect of the prefilter."""
    digest = hashlib.blake2b(f"{FORMAT} {spec.clip_model}".encode(), digest_size=8)
    for c in chunk:
        content: list[Any] = [c.key, c.version, c.location, c.captions, c.source]
        content.append(sorted(c.columns.items()))
        if c.companions:  # parts of sets without any keep their names
            content.append([(each.kind, each.location, each.version) for each in c.companions])
        digest.update(json.dumps(content, default=str).encode())
    return digest.hexdigest()


def _is_done(path: Path, spec: AnnotationSpec) -> bool:
    """Whether a part holds all that ``spec`` asks for, and no image that another try may read."""
    head = part_head(path)
    if not head or head["to_retry"] or not spec.measures.items() <= head["measures"].items():
        return False
    if head["prefilter"] in (None, spec.prefilter.digest):
        return True
    kept_out = read_part(path, _PREFILTERED).filter(_KEPT_OUT).to_pandas()
    return not spec.prefilter.passes(kept_out).any()


def _with_head(part: pa.Table, spec: AnnotationSpec) -> pa.Table:
    """The part with what ``part_head`` reads."""
    errors = _counted(part["error"])
    if ERROR in part.column_names:
        errors += _counted(part[ERROR].drop_null())
    head = {
        "format": FORMAT,
        "clip_model": spec.clip_model,
        "measures": spec.measures,
        "to_retry": sum(n for error, n in errors.items() if CANNOT_BE_READ in error),
        "prefilter": spec.prefilter.digest if part.filter(_KEPT_OUT).num_rows else None,
    }
    return part.replace_schema_metadata({METADATA: json.dumps(head)})


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs."""
    counts = column.value_counts().to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counts})
