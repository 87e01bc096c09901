"""Ledgers of made-up pictures for tests of packing: several captions, missing values and columns of many kinds."""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager

import numpy as np
import pandas as pd
from PIL import Image

from curate.pack.samples import Samples
from curate.pack.sorting import kept_rows
from curate.run import ledger
from curate.run.database import Limits
from curate.run.ledger_table import ledger_table
from tests.curate import small_ledgers

BIG = 2**53 + 1  # the first whole number that a float cannot hold


def picture(location: str) -> bytes:
    """A PNG, or where the location says so a JPEG, that depends on the location alone."""
    data = hashlib.sha256(location.encode()).digest()
    image = Image.frombytes("RGB", (3, 3), data[:27])
    stream = io.BytesIO()
    image.save(stream, "JPEG" if location.endswith("jpg") else "PNG")
    return stream.getvalue()


def random_ledger(seed: int, images: int, jpegs: bool = True) -> pd.DataFrame:
    """As ``decide`` gives it: captions of an image one after another, ties among similarities, dropped pairs."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in rng.permutation(images).tolist():
        key, split = f"k{number:05d}", str(rng.choice(["train", "train", "train", "val"]))
        end = "jpg" if jpegs and rng.random() < 0.4 else "png"
        location, control = f"{key}.{end}", f"{key}.control.png" if number % 3 == 0 else None
        image = {
            "key": key,
            "source": "made up",
            "width": 3,
            "height": 3,
            "format": {"jpg": "JPEG", "png": "PNG"}[end],
            "sha256": hashlib.sha256(picture(location)).hexdigest(),
            "location": location,
            "control_location": control,
            "control_sha256": control and hashlib.sha256(picture(control)).hexdigest(),
            "split": split,
            "photo_id": BIG + number if number % 4 else None,
            "url": f"http://x/{number}",
            "URL": f"http://y/{number}" if number % 5 else None,
            "row": number,
            "flag": [True, False, None][number % 3],
            "never": None,
            "licence": ["CC0", "", None][number % 3],
        }
        for place in range(int(rng.integers(1, 5))):
            kept = bool(rng.random() < 0.7)
            similarity = rng.choice([0.25, 0.3, rng.random(), np.nan])
            rows.append(
                image
                | {"caption_index": place, "caption": f"a caption {number} {place} ü", "kept": kept}
                | {"clip_similarity": np.float32(similarity), "split": split if kept else ""}
                | {
                    "words": float(place) if place % 2 else None,
                    "status": "kept" if kept else "dropped",
                }
            )
    table = pd.DataFrame(rows)
    table["flag"] = table["flag"].astype(object)
    table["never"] = table["never"].astype(object)
    kinds = {"width": np.int32, "clip_similarity": np.float32, "photo_id": "Int64"}
    absent = [name for name in ledger.COLUMNS if name not in table and name != "shard"]
    return table.assign(**dict.fromkeys(absent, "")).astype(
        {**kinds, "caption_index": np.int32, "clip_model": "category"}
    )


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """With all columns of a ledger, the absent ones empty."""
    absent = [name for name in ledger.COLUMNS if name not in table]
    return table.assign(**dict.fromkeys(absent, ""))


@contextmanager
def staged(folder, table, memory_bytes=200_000_000, threads=2):
    """The ledger on the disk: (its ``LedgerTable``, its parts)."""
    small_ledgers.write(folder, whole(table))
    parts = sorted(folder.glob("part-*.parquet"))
    with ledger_table(parts, Limits(folder / "scratch", memory_bytes, threads)) as found:
        yield found, parts


def samples(folder, table, keys=None) -> Samples:
    """Of the kept rows of some images, or of all."""
    with staged(folder, table) as (found, parts):
        return Samples(kept_rows(found, ledger.schema(parts[0]), keys))
