"""A series of three curations of growing data, drawn and decided without a picture.

600 pictures are followed by 8 % new ones twice. Some of these are near copies of held-out pictures, and some join a
held-out picture to one that was trained on. With shares of 2 % and a floor, added data moves the edge.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from curate.decide.config import HELD_OUT, SplitConfig
from curate.decide.held_out import COLUMNS, merged
from curate.filters.config import FiltersConfig
from tests.curate.decide.judging import Outcome, judged
from tests.curate.small_ledgers import all_rows

FIRST, MORE, COPIES, BRIDGES = 600, 48, 10, 4
SIDES = SplitConfig(val=0.02, test=0.02, minimum=40, siblings=True)


class Data:
    """Pictures as they are measured; each draw is another file of other pixels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows: list[dict] = []

    def add(self, like: str | None = None, group: str = "") -> str:
        """A new picture, perhaps a near copy of another, and perhaps of the same ``group`` by its source."""
        number, rng = len(self.rows), self.rng
        key = f"k{number:04d}"
        row = {"key": key, "caption_index": 0, "has_caption": True, "source": "drawn"}
        row |= {"caption": f"picture {rng.integers(1 << 40):x}", "location": "here", "version": "1"}
        row |= {"width": 64, "height": 64, "format": "PNG", "bytes": 100, "error": ""}
        row |= {"clip_similarity": np.float32(0.3), "clip_model": "drawn 0"}
        row |= {"group": group} if group else {}
        row |= self.file() | {"phash": self.look(), "phash_mirrored": self.look()}
        row |= {"thumbnail": rng.integers(0, 256, 96, np.uint8).tobytes()}
        vector = rng.normal(size=16).astype(np.float32)
        vector /= np.linalg.norm(vector)
        row |= {"image_embedding": vector.tobytes(), "text_embedding": vector.tobytes()}
        if like is not None:
            other = self.of(like)
            row |= {name: other[name] for name in ("phash_mirrored", "thumbnail")}
            row |= {"phash": f"{int(other['phash'], 16) ^ 0b101:016x}"}
        self.rows.append(row)
        return key

    def file(self) -> dict[str, str]:
        """The hashes of a file that is not there yet."""
        return {
            name: self.rng.bytes(length).hex() for name, length in (("sha256", 32), ("pixels_sha256", 8))
        }  # fmt: skip

    def look(self) -> str:
        return self.rng.bytes(8).hex()

    def of(self, key: str) -> dict:
        return next(row for row in self.rows if row["key"] == key)


def curate(data: Data, table: pd.DataFrame | None, sides: SplitConfig = SIDES) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part-00000.parquet")
        pd.DataFrame(data.rows).to_parquet(part)
        return judged([part], FiltersConfig(), sides, table)


def held_out(data: Data, verdicts: Outcome) -> pd.DataFrame:
    """As ``held_out_table`` reads it from files."""
    ledger = all_rows(verdicts.ledger)
    pixels = {row["key"]: row["pixels_sha256"] for row in data.rows}
    found = ledger[ledger["split"].isin(HELD_OUT)]
    return found.assign(pixels_sha256=found["key"].map(pixels))[list(COLUMNS)]


def grow(data: Data, last: Outcome) -> None:
    """New pictures: near copies of held-out ones, bridges from these to training pictures, and others."""
    ledger, rng = all_rows(last.ledger), data.rng
    kept_out = ledger.loc[ledger["split"].isin(HELD_OUT), "key"].tolist()
    trained = ledger.loc[ledger["split"] == "train", "key"].tolist()
    copied = rng.choice(kept_out, COPIES + BRIDGES, replace=False).tolist()
    for key in copied[:COPIES]:
        data.add(like=key)
    for key, other in zip(
        copied[COPIES:], rng.choice(trained, BRIDGES, replace=False), strict=True
    ):
        group = data.of(other).get("group", f"thing {other}")
        data.of(other)["group"] = group
        data.add(like=key, group=group)
    for _ in range(MORE - COPIES - BRIDGES):
        data.add()


def series(seed: int, with_table: bool) -> list[Outcome]:
    """Three curations."""
    data, table, found = Data(seed), None, []
    for _ in range(FIRST):
        data.add()
    for _ in range(3):
        if found:
            grow(data, found[-1])
        verdicts = curate(data, table if with_table else None)
        new = held_out(data, verdicts)
        table = new if table is None else merged(table, new)
        found.append(verdicts)
    return found


def on(verdicts: Outcome, *sides: str) -> set[str]:
    ledger = all_rows(verdicts.ledger)
    return set(ledger.loc[ledger["split"].isin(sides), "key"])
