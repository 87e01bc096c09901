"""Stage 1: measure each pair once. Parts are known by their content, written whole, and resumed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from curate.annotate.cache import AnnotationCache
from curate.annotate.config import AnnotateConfig
from curate.annotate.hash_index import HashIndex, name_of, names_of
from curate.annotate.measurer import Measurer
from curate.annotate.parts import LIST, METADATA, part_head, read_part, reading_part
from curate.annotate.spec import AnnotationSpec
from curate.clip.scorer import ClipScorer
from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE
from curate.readers.candidate import Candidate
from curate.readers.source import Source
from curate.run.cli import UserError
from curate.run.files import atomic_write, remove_parts, write_json

FORMAT = 3  # raise it when a measure changes its meaning: older parts are then measured again


@dataclass(frozen=True, slots=True)
class Annotations:
    """The parts in input order, and how many pairs were listed."""

    parts: list[Path]
    pairs: int


def annotate(
    source: Source,
    folder: Path,
    config: AnnotateConfig,
    request: AnnotationSpec,
    load_scorer: Callable[[], ClipScorer],
) -> Annotations:
    """Measure all candidates of ``source`` in one pass, a part at a time.

    A part is named by what it was measured from; what moved to another part is found by content.
    ``load_scorer`` is called when something needs the model, and then often: it should remember.

    Raises:
        UserError: a key comes twice, more images than ``config.max_reject_rate`` are unreadable, or a
            part is damaged behind a footer that says it is whole.
    """
    remove_parts(folder)
    paths: list[Path] = []
    keys, pairs = HashIndex(), 0
    with (
        tqdm(total=source.total, desc="annotate", unit="img") as bar,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        measurer = cache(
            lambda: Measurer(_known(folder, request), request, source.load, load_scorer, pool)
        )
        for chunk in _chunks(source.candidates(), config.images_per_part):
            _check_keys(chunk, keys)
            path = folder / f"part-{len(paths):05d}-{_digest(chunk, request)}.parquet"
            if not _is_done(path, request):
                limit = _most_rejects(config, chunk, is_first=not paths)
                _make_part(path, chunk, measurer(), limit, bar.update)
            else:
                bar.initial += len(chunk)  # no part of the rate
                bar.update(len(chunk))
            paths.append(path)
            pairs += sum(max(1, len(candidate.captions)) for candidate in chunk)
    write_json(folder / LIST, [path.name for path in paths])
    _remove_superseded(folder, paths, keys, request)
    return Annotations(paths, pairs)


def _remove_superseded(
    folder: Path, paths: list[Path], keys: HashIndex, request: AnnotationSpec
) -> None:
    """Delete parts all of whose images this pass has measured or found; others may be wanted again.

    Those of another CLIP, or of images outside a trial's selection, stay, and so do those whose damage
    hides what they are of.
    """
    for path in set(folder.glob("part-*.parquet")) - set(paths):
        head = part_head(path)
        if not head or (
            head.get("format") == FORMAT and head.get("clip_model") != request.clip_model
        ):
            continue
        rows = read_part(path, ["key"])["key"].unique().to_pylist()
        if all(keys.find(name_of(key)) is not None for key in rows):
            path.unlink()


def _make_part(
    path: Path,
    chunk: list[Candidate],
    measurer: Measurer,
    max_reject_rate: float,
    progress: Callable[[int], object],
) -> None:
    table = measurer.measure(chunk, progress)
    _check_rejects(table, max_reject_rate)
    _write(path, table, measurer)
    measurer.known.add_part(path)


def _most_rejects(config: AnnotateConfig, chunk: list[Candidate], is_first: bool) -> float:
    """The share of unreadable images that stops the run; any in a rest, which says little of the whole."""
    is_rest = not is_first and len(chunk) < config.images_per_part
    return 1.0 if is_rest else config.max_reject_rate


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


def _digest(chunk: list[Candidate], request: AnnotationSpec) -> str:
    """Changes with whatever the part would hold, but for what the gate kept out."""
    digest = hashlib.blake2b(f"{FORMAT} {request.clip_model}".encode(), digest_size=8)
    for c in chunk:
        known = [c.key, c.version, c.location, c.captions, c.source, sorted(c.columns.items())]
        digest.update(json.dumps(known, default=str).encode())
    return digest.hexdigest()


def _is_done(path: Path, request: AnnotationSpec) -> bool:
    """Whether a part holds all that is asked for, and nothing that the next try may mend."""
    head = part_head(path)
    if not head or head["to_retry"] or not request.measures.items() <= head["measures"].items():
        return False
    if head["gate"] in (None, request.gate.digest):
        return True
    with reading_part(path):
        return not request.gate.opens_for(path)


def _known(folder: Path, request: AnnotationSpec) -> AnnotationCache:
    known = AnnotationCache(request.measures)
    for path in sorted(folder.glob("part-*.parquet")):
        head = part_head(path)
        if (head.get("format"), head.get("clip_model")) == (FORMAT, request.clip_model):
            known.add_part(path)
    return known


def _write(path: Path, table: pa.Table, measurer: Measurer) -> None:
    request = measurer.request
    head = {
        "format": FORMAT,
        "clip_model": request.clip_model,
        "measures": request.measures,
        "to_retry": sum(error.startswith(CANNOT_BE_READ) for error in table["error"].to_pylist()),
        "gate": request.gate.digest if measurer.held_back(table) else None,
    }
    with atomic_write(path) as stream:
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(head)}), stream)


def _check_rejects(table: pa.Table, limit: float) -> None:
    """A broken decoder must not quietly drop a whole part; a missing file is no fault of a decoder."""
    columns = table.select(["key", "error"]).to_pydict()
    errors = Counter(dict(zip(columns["key"], columns["error"], strict=True)).values())
    del errors[MISSING_FILE]
    images, readable = errors.total(), errors.pop("", 0)
    if images - readable > limit * images:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in errors.most_common(5))
        raise UserError(
            f"{images - readable} of {images} images in a row are unreadable ({reasons}), more than "
            f"annotate.max_reject_rate={limit}; mend the input, or type annotate.max_reject_rate=1"
        )
