"""Stage 1: measure each pair once. Parts are written whole, known by their content, and resumed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image
from tqdm import tqdm

from curate.clip import ClipScorer
from curate.command import UserError
from curate.config import AnnotateConfig
from curate.files import atomic_write, remove_parts
from curate.images import UnreadableImage, decode, phash, pixels_sha256, probe
from curate.sample import Candidate

FORMAT = 1  # raise it when a measure changes its meaning: older parts are then measured again
EMBEDDINGS = ("image_embedding", "text_embedding")
_METADATA = b"darkroom"
_FIELDS = [
    ("key", pa.string()),
    ("caption_index", pa.int32()),
    ("has_caption", pa.bool_()),
    ("source", pa.string()),
    ("caption", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("format", pa.string()),
    ("bytes", pa.int64()),
    ("sha256", pa.string()),
    ("pixels", pa.string()),
    ("phash", pa.string()),
    ("error", pa.string()),
    ("clip_similarity", pa.float32()),
    ("clip_model", pa.string()),
    ("image_embedding", pa.binary()),  # D float32, on the first row of an image
    ("text_embedding", pa.binary()),  # D float32
]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is measured of an image without a model; of an unreadable one, little but the reason."""

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    pixels: str = ""
    phash: str = ""
    error: str = ""


@dataclass
class Store:
    """What is known by content: images by SHA-256 of their bytes, text embeddings by caption."""

    images: dict[str, tuple[Picture, np.ndarray]] = field(default_factory=dict)
    texts: dict[str, np.ndarray] = field(default_factory=dict)

    def add_part(self, path: Path) -> None:
        """Take over what an earlier run measured with the same scorer."""
        names = list(Picture.__dataclass_fields__)
        for row in pq.read_table(path, columns=["caption", *EMBEDDINGS, *names]).to_pylist():
            if row["text_embedding"]:
                self.texts[row["caption"]] = np.frombuffer(row["text_embedding"], np.float32)
            if row["image_embedding"]:
                picture = Picture(**{name: row[name] for name in names})
                embedding = np.frombuffer(row["image_embedding"], np.float32)
                self.images[picture.sha256] = picture, embedding


def annotate(
    candidates: Sequence[Candidate],
    folder: Path,
    config: AnnotateConfig,
    fingerprint: str,
    load_scorer: Callable[[], ClipScorer],
) -> list[Path]:
    """Measure all candidates; returns the parts in input order.

    A part whose candidates and scorer are unchanged is kept as it is, so nothing is measured twice
    and the model is loaded only when something is missing. What moved to another part is found by
    content.

    Raises:
        UserError: of a full part's images, or of the first part's, more than
            ``config.max_reject_rate`` are unreadable.
    """
    remove_parts(folder)
    size = config.images_per_part
    chunks = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    paths = [folder / f"part-{number:05d}.parquet" for number in range(len(chunks))]
    digests = [_digest(chunk, fingerprint) for chunk in chunks]
    stale = [i for i, path in enumerate(paths) if part_metadata(path).get("digest") != digests[i]]
    if stale:
        store = _known(folder, fingerprint)
        scorer = load_scorer()
        done = len(candidates) - sum(len(chunks[i]) for i in stale)
        with (
            tqdm(total=len(candidates), initial=done, desc="annotate", unit="img") as bar,
            ThreadPoolExecutor(config.workers) as pool,
        ):
            for i in stale:
                table = _measure(chunks[i], scorer, store, pool, bar)
                if i == 0 or len(chunks[i]) == size:  # a rest of a few says little of the whole
                    _check_rejects(table, config.max_reject_rate)
                _write(paths[i], table, digests[i], fingerprint)
    for path in set(folder.glob("part-*.parquet")) - set(paths):
        path.unlink()
    return paths


def part_metadata(path: Path) -> dict[str, Any]:
    """What a part says about itself in its footer; empty for one that is missing or not ours."""
    if not path.is_file():
        return {}
    return json.loads((pq.read_schema(path).metadata or {}).get(_METADATA, b"{}"))


def _digest(chunk: Sequence[Candidate], fingerprint: str) -> str:
    digest = hashlib.blake2b(f"{FORMAT} {fingerprint}".encode(), digest_size=16)
    for c in chunk:
        known = [c.key, c.version, c.captions, c.source, sorted(c.columns.items())]
        digest.update(json.dumps(known).encode())
    return digest.hexdigest()


def _known(folder: Path, fingerprint: str) -> Store:
    store = Store()
    for path in sorted(folder.glob("part-*.parquet")):
        head = part_metadata(path)
        if (head.get("format"), head.get("fingerprint")) == (FORMAT, fingerprint):
            store.add_part(path)
    return store


def _write(path: Path, table: pa.Table, digest: str, fingerprint: str) -> None:
    head = {"format": FORMAT, "digest": digest, "fingerprint": fingerprint}
    with atomic_write(path) as stream:
        pq.write_table(table.replace_schema_metadata({_METADATA: json.dumps(head)}), stream)


def _check_rejects(table: pa.Table, limit: float) -> None:
    """A broken decoder or a wrong folder must not quietly drop a whole part."""
    columns = table.select(["key", "error"]).to_pydict()
    errors = Counter(dict(zip(columns["key"], columns["error"], strict=True)).values())
    images, readable = errors.total(), errors.pop("", 0)
    if images - readable > limit * images:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in errors.most_common(5))
        raise UserError(
            f"{images - readable} of {images} images in a row are unreadable ({reasons}), more than "
            f"annotate.max_reject_rate={limit}; mend the input, or type annotate.max_reject_rate=1"
        )


def _measure(
    chunk: Sequence[Candidate],
    scorer: ClipScorer,
    store: Store,
    pool: ThreadPoolExecutor,
    bar: tqdm,
) -> pa.Table:
    pictures: list[Picture] = []
    fresh: dict[str, tuple[Picture, np.ndarray]] = {}
    for batch in _prefetched(chunk, pool, store, scorer.batch_size):
        pictures += [picture for picture, _ in batch]
        new = {p.sha256: (p, image) for p, image in batch if image and p.sha256 not in fresh}
        embeddings = scorer.encode_images([image for _, image in new.values()])
        for (sha256, (picture, _)), embedding in zip(new.items(), embeddings, strict=True):
            fresh[sha256] = picture, embedding
        bar.update(len(batch))
    # Only now: what a batch holds must not depend on how far ahead the threads are.
    store.images.update(fresh)
    readable = [c for c, picture in zip(chunk, pictures, strict=True) if not picture.error]
    texts = [text for c in readable for text in c.captions if text and text not in store.texts]
    store.texts.update(zip(texts, scorer.encode_texts(texts), strict=True))
    rows = [row for c, p in zip(chunk, pictures, strict=True) for row in _rows(c, p, store, scorer)]
    extra = sorted({name for c in chunk for name in c.columns} - {name for name, _ in _FIELDS})
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in _FIELDS}
    columns |= {name: pa.array([row.get(name) for row in rows]) for name in extra}
    return pa.table(columns)


def _prefetched(
    chunk: Sequence[Candidate], pool: ThreadPoolExecutor, store: Store, size: int
) -> Iterator[list[tuple[Picture, Image | None]]]:
    """Batches in order; while one is being encoded the next is read and decoded."""
    look = partial(_look, store)
    ahead: list[Future[tuple[Picture, Image | None]]] = []
    for start in range(0, len(chunk) + size, size):
        current, ahead = ahead, [pool.submit(look, c) for c in chunk[start : start + size]]
        if current:
            yield [future.result() for future in current]


def _look(store: Store, candidate: Candidate) -> tuple[Picture, Image | None]:
    """The picture's measures, and its pixels if CLIP has not seen these bytes yet."""
    sha256, size = "", 0
    try:
        data = candidate.load()
        sha256, size = hashlib.sha256(data).hexdigest(), len(data)
        if sha256 in store.images:
            return store.images[sha256][0], None
        _, _, kind = probe(data)
        image = decode(data)
    except UnreadableImage as error:
        return Picture(sha256, size, error=error.reason), None
    picture = Picture(
        sha256, size, image.width, image.height, kind, pixels_sha256(image), phash(image)
    )
    return picture, image


def _rows(
    candidate: Candidate, picture: Picture, store: Store, scorer: ClipScorer
) -> Iterator[dict[str, Any]]:
    """One row for each caption, and one for an image that has none."""
    _, image = store.images.get(picture.sha256, (picture, None))
    for index, caption in enumerate(candidate.captions or ("",)):
        text = None if image is None else store.texts.get(caption)
        yield {
            **candidate.columns,
            "key": candidate.key,
            "caption_index": index,
            "has_caption": bool(candidate.captions),
            "source": candidate.source,
            "caption": caption,
            **{name: getattr(picture, name) for name in Picture.__dataclass_fields__},
            "clip_similarity": None if image is None or text is None else _cosine(image, text),
            "clip_model": f"{scorer.name} {scorer.fingerprint}",
            "image_embedding": image.tobytes() if image is not None and index == 0 else None,
            "text_embedding": None if text is None else text.tobytes(),
        }


def _cosine(image: np.ndarray, text: np.ndarray) -> float:
    """Dot product of two unit vectors in double precision, to the six digits that batches agree on."""
    return round(float(image.astype(np.float64) @ text.astype(np.float64)), 6)
