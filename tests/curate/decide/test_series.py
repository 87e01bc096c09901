"""In a series of curations of growing data, what was held out once is never trained on later.

The table has to hold in place what near copies, bridges and the floor would move, while pictures leave or are
saved again.
"""

from dataclasses import replace

import pytest

from curate.decide.config import HELD_OUT, SMALLEST_JUDGED
from tests.curate.decide.growing import (
    BRIDGES,
    COPIES,
    FIRST,
    SIDES,
    Data,
    curate,
    grow,
    held_out,
    on,
    series,
)
from tests.curate.small_ledgers import all_rows


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
        kept = all_rows(verdicts.ledger).query("kept")
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
    assert "held_out_by" not in found[2].ledger.columns


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
    ledger = all_rows(curate(data, table).ledger)
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
    ledger = all_rows(verdicts.ledger).set_index("key")
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
        ledger = all_rows(curate(data, table, less).ledger)
        now = dict(zip(ledger["key"], ledger["split"], strict=True))
        assert all(now[row.key] == row.split for row in table.itertuples())
