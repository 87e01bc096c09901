"""Random pictures in families, with ties, copies, missing values and captions of few words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate.embeddings import Embeddings
from curate.decide.looks import numbers
from tests.curate.decide.naive_group_names import group_names

SIZE = 16
_WORDS = [f"w{n}" for n in range(60)] + list("红绿蓝犬猫鳥手を振る人")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def stored(
    folder: Path, vectors, parts: int = 1, texts=None, captions=None, keys=None
) -> Embeddings:
    """Embeddings in parts; ``None`` where a row has none."""
    columns = {
        "image_embedding": vectors,
        "text_embedding": texts,
        "caption": captions,
        "key": keys,
    }
    paths = []
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), parts)):
        table = {}
        for name, values in columns.items():
            if values is None:
                continue
            chosen = [values[n] for n in rows]
            if name.endswith("embedding"):
                chosen = [
                    None if v is None else np.asarray(v, np.float32).tobytes() for v in chosen
                ]
            table[name] = pa.array(
                chosen, pa.binary() if name.endswith("embedding") else pa.string()
            )
        paths.append(folder / f"{number:03d}.parquet")
        pq.write_table(pa.table(table), paths[-1])
    return Embeddings(paths)


def drawn(seed: int, families: int = 90, chain: int = 0):
    """A table of pairs, the image embeddings by row and the group of copies of each row.

    Args:
        seed: of the draw.
        families: of one to six pictures, each with words and a direction of its own.
        chain: pictures of which each is a little different from the last, in picture and words.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for number in range(families):
        own = unit(rng.normal(size=SIZE))
        said = [f"thing{number}", *rng.choice(_WORDS, 2)]
        for _ in range(rng.integers(1, 7)):
            near = unit(own + rng.choice([0, 0.2, 0.6]) * rng.normal(size=SIZE) / 4)
            words = [*said, *rng.choice(_WORDS, rng.integers(0, 3))]
            pictures.append((near, words))
    angles = np.cumsum(rng.uniform(0.02, 0.03, chain))
    for number, angle in enumerate(angles):
        vector = np.zeros(SIZE, np.float32)
        vector[:2] = np.cos(angle), np.sin(angle)
        pictures.append((vector, [f"c{number + k}" for k in range(8)]))
    order = rng.permutation(len(pictures))
    rows, vectors = [], []
    for place in order:
        vector, words = pictures[place]
        same = rng.random() < 0.1 and rows and rows[-1]["pixels_sha256"]
        pixels = rows[-1]["pixels_sha256"] if same else rng.bytes(8).hex()
        decoded, embedded = rng.random() > 0.03, rng.random() > 0.03
        pixels = pixels if decoded else ""
        for index in range(rng.choice([1, 1, 1, 2, 4])):
            chosen = (
                list(rng.permutation(words)[: rng.integers(0, len(words) + 1)]) if index else words
            )
            text = rng.choice(["", "!", "a photo"]) if rng.random() < 0.05 else " ".join(chosen)
            row = {"key": f"k{place:05d}", "caption": text, "caption_index": index}
            row |= {"pixels_sha256": pixels, "group": f"g{place // 5}" if place % 7 == 0 else ""}
            rows.append(row)
            vectors.append(vector if embedded and decoded and not index else None)
    return pd.DataFrame(rows), vectors


def copies_of(table: pd.DataFrame) -> pd.Series:
    """The groups of equal pixels, named as ``duplicates.groups`` names them."""
    decoded = table[table["pixels_sha256"] != ""]
    pixels = decoded["pixels_sha256"]
    labels, _ = pd.factorize(pixels)
    names = group_names(labels, pixels, numbers(pixels), decoded["group"])
    return names.reindex(table.index, fill_value="")
