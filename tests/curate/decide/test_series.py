"""A series of three curations of growing data: what was held out once is never trained on later.

600 pictures are followed by 8 % new ones twice. Some of these are near copies of held-out pictures, some join a
held-out picture to one that was trained on, and between the curations pictures leave, or are saved again. With
shares of 2 % and a floor, added data moves the edge; the table has to hold all of it in place.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curate.annotate.embeddings import Embeddings
from curate.annotate.frame import load_annotations
from curate.annotate.spec import AnnotationSpec
from curate.decide import stage
from curate.decide.config import HELD_OUT, SMALLEST_JUDGED, SplitConfig
from curate.decide.held_out import COLUMNS, merged
from curate.filters.config import FiltersConfig
from curate.filters.prefilter import Prefilter
from curate.run.removals import Removals

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


def curate(data: Data, table: pd.DataFrame | None, sides: SplitConfig = SIDES) -> stage.Verdicts:
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part-00000.parquet")
        pd.DataFrame(data.rows).to_parquet(part)
        filters = FiltersConfig()
        spec = AnnotationSpec("drawn 0", Prefilter(filters.image, filters.caption))
        pairs = load_annotations([part], spec)
        return stage.decide(pairs, Embeddings([part]), filters, sides, Removals(), table)


def held_out(data: Data, verdicts: stage.Verdicts) -> pd.DataFrame:
    """As ``held_out_table`` reads it from files."""
    ledger = verdicts.ledger
    pixels = {row["key"]: row["pixels_sha256"] for row in data.rows}
    found = ledger[ledger["split"].isin(HELD_OUT)]
    return found.assign(pixels_sha256=found["key"].map(pixels))[list(COLUMNS)]


def grow(data: Data, last: stage.Verdicts) -> None:
    """New pictures: near copies of held-out ones, bridges from these to training pictures, and others."""
    ledger, rng = last.ledger, data.rng
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


def series(seed: int, with_table: bool) -> list[stage.Verdicts]:
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


def on(verdicts: stage.Verdicts, *sides: str) -> set[str]:
    ledger = verdicts.ledger
    return set(ledger.loc[ledger["split"].isin(sides), "key"])


@pytest.mark.parametrize("seed", range(3))
def test_what_was_held_out_is_never_trained_on_later(seed):
    found = series(seed, with_table=True)
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        before = on(found[earlier], *HELD_OUT)
        assert before <= on(found[later], *HELD_OUT)
        assert on(found[earlier], "test") <= on(
            found[later], "test"
        )  # val may join a group of test
    for verdicts in found:
        kept = verdicts.ledger[verdicts.ledger["kept"]]
        assert kept.groupby("duplicate_group")["split"].nunique().max() == 1
        assert kept[kept["split"] == "val"]["duplicate_group"].nunique() >= SMALLEST_JUDGED
    again = found[2].held_out_again
    assert again.left == {}
    assert (
        sum(again.sides.values())
        == again.listed
        == len(on(found[0], *HELD_OUT) | on(found[1], *HELD_OUT))
    )
    assert again.joined >= COPIES


@pytest.mark.parametrize("seed", range(3))
def test_without_the_table_some_would_be(seed):
    """Else the test above shows nothing."""
    found = series(seed, with_table=False)
    assert on(found[0], *HELD_OUT) & on(found[1], "train")
    assert on(found[1], *HELD_OUT) & on(found[2], "train")
    assert all(verdicts.held_out_again is None for verdicts in found)
    assert "held_out_by" not in found[2].ledger


def test_the_table_holds_out_little_more_than_the_shares_and_the_floor():
    """What joins held-out groups comes on top, and nothing else."""
    with_table, without = (series(5, with_table) for with_table in (True, False))
    joined = sum(verdicts.held_out_again.joined for verdicts in with_table[1:])
    for side in HELD_OUT:
        more = len(on(with_table[2], side)) - len(on(without[2], side))
        assert more <= joined + BRIDGES


def test_each_row_says_by_which_picture_its_group_is_held_out():
    data = Data(7)
    for _ in range(FIRST):
        data.add()
    first = curate(data, None)
    table = held_out(data, first)
    grow(data, first)
    ledger = curate(data, table).ledger
    listed = set(table["key"])
    for row in ledger.itertuples():
        if row.key in listed:
            assert row.held_out_by == row.key
        elif row.held_out_by:
            assert row.held_out_by in listed
            group = ledger.loc[ledger["key"] == row.held_out_by, "duplicate_group"].item()
            assert group == row.duplicate_group
    by_hash = ledger[(ledger["held_out_by"] == "") & ledger["split"].isin(HELD_OUT)]
    assert not listed & set(by_hash["key"])
    assert (ledger["held_out_by"] != "").sum() >= len(listed) + COPIES + BRIDGES


def test_pictures_that_leave_and_files_that_change():
    """Of five held-out pictures one is gone, two are saved again, and two are replaced by other pictures."""
    data = Data(11)
    for _ in range(FIRST):
        data.add()
    first = curate(data, None)
    table = held_out(data, first)
    gone, saved, same_pixels, replaced, dropped = table["key"].sample(5, random_state=0)
    was = table.set_index("key")["split"]
    near = f"{int(data.of(saved)['phash'], 16) ^ 0b11:016x}"
    data.of(saved).update(data.file(), phash=near)
    data.of(same_pixels).update(sha256="e" * 64)
    data.of(replaced).update(data.file(), phash=data.look(), thumbnail=data.rng.bytes(96))
    data.of(dropped)["caption"] = ""
    data.rows = [row for row in data.rows if row["key"] != gone]
    verdicts = curate(data, table)
    ledger = verdicts.ledger.set_index("key")
    for key in (saved, same_pixels):
        assert ledger.loc[key, "split"] == was[key]
        assert ledger.loc[key, "held_out_by"] == key
    assert ledger.loc[replaced, "held_out_by"] == ""
    assert ledger.loc[dropped, ["split", "duplicate_group", "held_out_by"]].tolist() == [""] * 3
    again = verdicts.held_out_again
    assert again.left == {"empty_caption": 1, "gone": 1, "replaced": 1}
    assert sum(again.sides.values()) == len(table) - 3


def test_settings_that_hold_out_less_leave_the_table_alone():
    data = Data(13)
    for _ in range(FIRST):
        data.add()
    first = curate(data, None)
    table = held_out(data, first)
    for less in (replace(SIDES, val=0, test=0), replace(SIDES, seed=9), replace(SIDES, minimum=0)):
        ledger = curate(data, table, less).ledger
        now = dict(zip(ledger["key"], ledger["split"], strict=True))
        assert all(now[row.key] == row.split for row in table.itertuples())
