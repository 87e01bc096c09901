"""In a series the promoted run is compared on what both hold out, whatever new pictures join to what it saw."""

from __future__ import annotations

import pytest

from curate.decide.config import HELD_OUT, SIDES
from evaluate.judged_runs import comparable
from tests.curate.decide.growing import series
from tests.curate.small_ledgers import all_rows
from tests.evaluate.planted import Planted, opened_against, rewrite

COLUMNS = ["key", "sha256", "duplicate_group", "caption"]


def planted(runs, curations):
    """The curations' sidecars, of as many runs; all but the last are judged on all that they hold out."""
    tables = []
    for number, verdicts in enumerate(curations, 1):
        table = all_rows(verdicts.ledger).query("kept")
        name = f"s-{number:04d}"
        folder = runs.curate(name, 1, 1, 1)
        for side in SIDES:
            rewrite(folder, side, lambda _, of=table, at=side: of.loc[of["split"] == at, COLUMNS])
        if number < len(curations):
            keys = {side: table.loc[table["split"] == side, "key"].tolist() for side in HELD_OUT}
            runs.run(name, data=name, keys=keys)
        tables.append(table.set_index("key"))
    return tables


def unfair(promoted, latest, side):
    """Of the pictures that both hold out on a side, those in a group with one that a run was trained on."""
    both = promoted.index[promoted["split"] == side].intersection(
        latest.index[latest["split"] == side]
    )
    found = set()
    for trained, other in ((promoted, latest), (latest, promoted)):
        train = trained.index[trained["split"] == "train"]
        seen = set(trained.loc[train, "duplicate_group"])
        seen |= set(other.loc[train.intersection(other.index), "duplicate_group"])
        found |= {key for key in both if other.loc[key, "duplicate_group"] in seen}
    return set(both), found


@pytest.mark.parametrize("seed", range(2))
def test_the_promoted_run_is_compared_on_the_same_pictures(tmp_path, results, seed):
    runs = Planted(tmp_path, results)
    tables = planted(runs, series(seed, with_table=True))
    left_out = 0
    for number, promoted in enumerate(tables[:2], 1):
        found = opened_against(runs, f"s-{number:04d}", of="s-0003", data="s-0003")
        for side in HELD_OUT:
            both, bridged = unfair(promoted, tables[2], side)
            here = promoted.index[promoted["split"] == side]
            moved = tables[2].loc[here, "split"] != side  # into a group of test
            assert both == set(here[~moved])
            assert set(found.pictures[side].keys) == both - bridged
            assert found.pictures[side].left_out.get(comparable.TRAINED_ON, 0) == len(bridged)
            left_out += len(bridged)
    assert left_out >= 4  # the bridges of one growth


def test_without_the_table_fewer_are_left(tmp_path, results):
    with_table, without = (
        planted(Planted(tmp_path / name, results), series(0, with_table=name == "with"))
        for name in ("with", "without")
    )

    def compared(tables):
        both, bridged = zip(*(unfair(tables[0], tables[2], side) for side in HELD_OUT), strict=True)
        return sum(map(len, both)) - sum(map(len, bridged))

    assert compared(with_table) > compared(without)
