"""The runs of a series, its pointer and its history, whatever its name is."""

import json

import pytest

from curate.run.schema import UserError
from workflows.retraining.record import Record
from workflows.retraining.series import Current, Series, all_of, series_of

ODD = ["mine", "a b", "[x]", "a*", "it's, (1)", "mine-0001", "x-series", "{a}", "ü"]


@pytest.fixture
def series(tmp_path):
    found = Series(tmp_path / "runs", "mine")
    found.folder.mkdir(parents=True)
    return found


def run(series, number, **values):
    record = Record(series.name, number, **values)
    series.run_dir(record.run).mkdir(parents=True)
    record.save(series.run_dir(record.run))
    return record


@pytest.mark.parametrize("name", ODD)
def test_runs_are_counted_whatever_the_name(tmp_path, name):
    series, others = Series(tmp_path, name), [Series(tmp_path, odd) for odd in ODD if odd != name]
    assert series.numbers() == []
    assert series.next_number() == 1
    for other in others:
        run(other, 7)
        other.folder.mkdir()
    run(series, 1)
    run(series, 12345)
    assert series.numbers() == [1, 12345]
    assert [record.number for record in series.records()] == [1, 12345]
    assert series.next_number() == 12346
    series.folder.mkdir()
    assert series in all_of(tmp_path)
    assert series_of(series.run_dir(f"{name}-0001")) == series


def test_a_folder_of_another_kind_keeps_its_number_and_is_no_run(series):
    (series.root / "mine-0003" / "curate").mkdir(parents=True)
    for name in ("mine-3", "mine-003", "mine-x", "mine-0009.part", "ermine-0008", "mine-٠٠٠٩"):
        (series.root / name).mkdir()
    assert series.next_number() == 4
    assert series.records() == []
    assert series_of(series.root / "mine-0003") is None


def test_the_number_of_a_deleted_run_is_not_given_again(series):
    series.add("rejected", "mine-0007", "why")
    assert series.next_number() == 8


def test_the_pointer_is_read_as_it_was_written_or_refused(series):
    assert series.current() is None
    current = Current("mine-0002", "mine-0002/finetune/export", "then", "promoted", "mine-0001")
    series.point_to(current)
    assert series.current() == current
    path = series.folder / "current.json"
    path.write_text(path.read_text().replace("mine-0002", "mine-0003"))
    with pytest.raises(UserError, match=r"current\.json is damaged; type .*workflows\.promote RUN"):
        series.current()


def test_the_history_grows_and_names_the_promoted_run(series):
    assert series.history() == []
    series.add("rejected", "mine-0001", "no\nbetter", {"pairs": 3})
    series.point_to(Current("mine-0002", "x", "then", "promoted"))
    series.add("promoted", "mine-0002", "“better”")
    first, second = series.history()
    assert (first.event, first.run, first.current, first.sentence, first.summary) == (
        "rejected", "mine-0001", "", "no\nbetter", {"pairs": 3},
    )  # fmt: skip
    assert (second.current, second.sentence) == ("mine-0002", "“better”")
    assert series.has_ended("mine-0001", "rejected")
    assert not series.has_ended("mine-0001", "promoted")


@pytest.mark.parametrize("damage", [b"{", b"\xff", b'{"when": "x"}', b"[]"])
def test_a_damaged_line_is_named_and_nothing_is_lost(series, damage):
    series.add("rejected", "mine-0001", "why")
    series.add("rejected", "mine-0002", "why")
    path = series.folder / "history.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, lines[1], b""]))
    before = path.read_bytes()
    for ask in (series.history, series.next_number, lambda: series.add("rejected", "x", "y")):
        with pytest.raises(UserError, match=r"history\.jsonl, line 2 is damaged; restore"):
            ask()
    assert path.read_bytes() == before


def test_a_line_without_an_end_counts(series):
    series.add("rejected", "mine-0001", "why")
    path = series.folder / "history.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    series.add("rejected", "mine-0002", "why")
    assert [json.loads(line)["run"] for line in path.read_text().splitlines()] == [
        "mine-0001",
        "mine-0002",
    ]


def test_what_moved_the_pointer_without_a_line_is_found(series):
    assert series.untold() is None
    series.point_to(Current("mine-0001", "x", "then", "promoted"))
    assert series.untold() == series.current()
    series.add("promoted", "mine-0001", "why")
    series.add("rejected", "mine-0002", "why")
    assert series.untold() is None
    series.point_to(Current("mine-0001", "x", "then", "rolled back"))
    assert series.untold().event == "rolled back"


def test_what_killed_retrainings_left_is_deleted_and_nothing_else(series):
    run(series, 1)
    keep = [series.root / name for name in ("mine-0001", ".other-0001.part", ".mine-x.part")]
    for path in (*keep, series.root / ".mine-0002.part", series.run_dir("mine-0001") / "curate"):
        path.mkdir(exist_ok=True)
    (series.root / ".mine-0002.part" / "retrain.json").write_text("")
    for folder in (
        series.folder,
        series.run_dir("mine-0001"),
        series.run_dir("mine-0001") / "curate",
    ):
        (folder / ".x.json.42.part").write_text("")
    with series.locked():
        pass
    assert all(path.is_dir() for path in keep)
    left = sorted(p.relative_to(series.root).as_posix() for p in series.root.rglob(".*.part"))
    own = "mine-0001/curate/.x.json.42.part"  # of a stage, which deletes it under its lock
    assert left == [".mine-x.part", ".other-0001.part", own]
