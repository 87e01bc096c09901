"""A retraining that is killed in front of any of its writes ends, started again, as an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from curate.run.files import write_text
from curate.run.removals import Removals, write_removals
from tests.workflows.retraining.conftest import Team, digest
from tests.workflows.retraining.kill_points import killed_at
from workflows.retraining import (
    apart,
    held_out,
    history_page,
    lineage,
    model_card,
    promotion,
    run_report,
    summary,
)

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
MOST = 500  # writes of a scenario; ends a loop that would not
VARYING = ("checksum", "stats")  # digests of what has times in it


def contents(root: Path) -> dict[str, str]:
    """What every file says, but for times."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            found[name] = "a folder"
        elif path.name != ".lock":
            found[name] = TIME.sub("then", said(path))
    return found


def said(path: Path) -> str:
    if path.suffix == ".tsv":  # kind, size, mtime, ctime, inode, sha256, path
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        return "\n".join(" ".join([kind, sha, name]) for kind, *_, sha, name in lines)
    if path.suffix == ".json":
        content = json.loads(path.read_bytes())
        return json.dumps({key: content[key] for key in content if key not in VARYING})
    return path.read_bytes().decode(errors="replace")


@dataclass
class Scenario:
    """What comes before, undisturbed, and the start that is killed."""

    before: Callable[[Team], object]
    start: Callable[[Team], object]
    at_least: int  # writes, so that none is overlooked


def promoted(team: Team) -> None:
    assert team.retrain().outcome == "promoted"


def several(team: Team) -> None:
    for name in "efg":
        promoted(team)
        team.add(name)


def two(team: Team) -> None:
    promoted(team)
    team.add("e")
    promoted(team)


def ends(gate: str, kept: int = 450) -> Callable[[Team], None]:
    def before(team: Team) -> None:
        promoted(team)
        team.add("e")
        team.commands.gate, team.commands.kept = gate, kept

    return before


def given_up(team: Team) -> None:
    promoted(team)
    team.lr = 2.0
    assert team.retrain(until="finetune").outcome == "started"
    team.lr = 3.0


def removed(team: Team) -> None:
    two(team)
    keys = Removals(keys=frozenset({"a"}))
    write_removals(team.series.run_dir("mine-0001") / "curate", keys)


def by_hand(team: Team) -> None:
    with team.series.locked("series"):
        promotion.by_hand(team.series, "mine-0001", print)


def back(team: Team) -> None:
    if any(entry.event == "rolled back" for entry in team.series.history()):
        return  # its last act was done; whoever types it again goes the way back
    with team.series.locked("series"):
        promotion.roll_back(team.series, print)


def retrain(team: Team) -> None:
    team.retrain()


def of_two_sets(team: Team) -> None:
    """Of which the second holds out a copy of what the first trains on, until that is curated again."""
    team.two_sets()
    team.add("xy", to="own")
    (team.folder("own") / "d.png").unlink()
    team.add("yx", to="photos")


def grown_two_sets(team: Team) -> None:
    of_two_sets(team)
    for name in "efg":
        promoted(team)
        team.add(name, to="photos")


def removed_from_one(team: Team) -> None:
    of_two_sets(team)
    promoted(team)
    keys = Removals(keys=frozenset({"l"}))
    write_removals(team.series.run_dir("mine-0001-photos") / "curate", keys)


def another_weight(team: Team) -> None:
    """Of a run that had curated one data set, and is given up."""
    of_two_sets(team)
    promoted(team)
    team.weights = {"own": 1.0, "photos": 0.5}
    assert team.retrain(until="finetune").outcome == "started"
    team.weights = {"own": 1.0, "photos": 0.7}


SCENARIOS = {
    "first": Scenario(lambda team: None, retrain, 25),
    "promoted, two older ones deleted": Scenario(several, lambda t: t.retrain(keep=1), 60),
    "rejected": Scenario(ends("failed"), retrain, 25),
    "undecided": Scenario(ends("undecided"), retrain, 25),
    "the base kept": Scenario(ends("passed", kept=0), retrain, 25),
    "given up, and the next": Scenario(given_up, retrain, 30),
    "a picture removed": Scenario(removed, retrain, 25),
    "from the promoted": Scenario(
        two, lambda t: t.retrain(start_from="promoted", until="promote"), 25
    ),
    "nothing to do": Scenario(two, retrain, 2),
    "promoted by hand": Scenario(two, by_hand, 4),
    "rolled back": Scenario(two, back, 4),
    "two data sets": Scenario(of_two_sets, retrain, 30),
    "two data sets, two older runs deleted": Scenario(
        grown_two_sets, lambda t: t.retrain(keep=1), 70
    ),
    "two data sets, a picture removed from one": Scenario(removed_from_one, retrain, 30),
    "two data sets, given up, and the next": Scenario(another_weight, retrain, 40),
}


@pytest.fixture(autouse=True)
def fast(team, monkeypatch):
    """With short texts for the table of held-out pictures and all pages, and without waiting for the disk."""

    def page(place):
        return lambda series, record=None: write_text(place(series, record), "a page")

    for module in (lineage, model_card, run_report):
        name = f"{module.__name__.rpartition('.')[2]}.txt"
        written = page(lambda series, record, name=name: series.run_dir(record.run) / name)
        monkeypatch.setattr(module, "write", written)
    monkeypatch.setattr(history_page, "write", page(lambda series, _: series.folder / "page.txt"))
    monkeypatch.setattr(summary, "of", lambda run_dir: {"run": run_dir.name})

    def add(series, run_dir):
        content = json.loads((run_dir / "curate" / "manifest.json").read_bytes())
        new = {digest(key) for key, side in content["sides"].items() if side == "val"}
        table = series.folder / held_out.TABLE
        old = table.read_text().split() if table.exists() else []
        write_text(table, " ".join(sorted({*old, *new})))

    def identities(curation):
        content = json.loads((curation.folder / "manifest.json").read_bytes())
        rows = [(key, digest(key), "", side) for key, side in content["sides"].items()]
        return pd.DataFrame(rows, columns=["key", "sha256", "duplicate_group", "split"])

    monkeypatch.setattr(held_out, "add", add)
    monkeypatch.setattr(apart, "_identities", identities)
    team.commands.held_out = lambda path: {*path.read_text().split()}
    monkeypatch.setattr(os, "fsync", lambda file: None)
    team.commands.ledger = False


# Those in which most kinds of writes happen; `make test-all` takes the others, too.
ALWAYS = ("first", "promoted by hand", "rolled back", "nothing to do")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow, id=name)
        for name in SCENARIOS
    ],
)
def test_killed_before_any_write_it_ends_as_an_undisturbed_one(team, tmp_path, name):
    scenario = SCENARIOS[name]
    scenario.before(team)
    saved = tmp_path / "saved"
    if team.root.exists():
        shutil.copytree(team.root, saved, symlinks=True)
    scenario.start(team)
    expected = contents(team.root)
    assert not [path for path in expected if path.endswith(".part")]
    number = 0
    for number in range(1, MOST):
        shutil.rmtree(team.root)
        if saved.exists():
            shutil.copytree(saved, team.root, symlinks=True)
        with killed_at(number, team.root) as was_killed:
            scenario.start(team)
        if not was_killed():
            break
        team.series.current()  # whoever reads now finds nothing half written
        team.series.history()
        team.series.records()
        if number % 3 == 0:  # and the next one is killed as well
            with killed_at(1 + number * 7 % 23, team.root) as was_killed:
                scenario.start(team)
        if was_killed():
            scenario.start(team)
        assert contents(team.root) == expected, number
    assert scenario.at_least < number < MOST
