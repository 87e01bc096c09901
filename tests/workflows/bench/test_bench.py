"""Each benchmark runs on little data and prints its result."""

import re
from importlib import import_module

import pyarrow as pa
import pytest

from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from workflows.bench import (
    compare,
    deciding,
    drawing,
    engines,
    fetching,
    growing,
    judging,
    memory,
    near_copies,
    retraining,
    scoring,
    sharding,
)
from workflows.bench.__main__ import BENCHMARKS, LARGE, main
from workflows.bench.data import Photographs


@pytest.fixture(autouse=True)
def one_round(monkeypatch):
    monkeypatch.setattr(compare, "ROUNDS", 1)


def test_ratios_are_medians_over_the_rounds(capsys, monkeypatch):
    seconds = iter([0, 2, 10, 11])  # A takes 2 s, B takes 1 s
    monkeypatch.setattr(compare.time, "perf_counter", lambda: next(seconds))
    compare.compare("title", {"slow": lambda: None, "fast": lambda: None}, 8, "pairs")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert lines == [
        ["A", "slow", "4.0", "1.00", "0.50"],
        ["B", "fast", "8.0", "2.00", "1.00"],
    ]


def test_a_picture_depends_on_its_number_only():
    few, every = (Photographs(5, 64, distinct).source() for distinct in (2, None))
    assert [c.key for c in few.candidates()] == [c.key for c in every.candidates()]
    assert few.load("3")[:-4] == few.load("1")[:-4] == every.load("1") != every.load("3")


def test_deciding(capsys, monkeypatch):
    monkeypatch.setattr(deciding, "ROWS", 2_000)
    monkeypatch.setattr(deciding, "ROWS_PER_PART", 1_000)
    deciding.run()
    printed = capsys.readouterr().out
    kept = int(re.search(r"deciding 2,000 pairs, ([\d,]+) kept", printed)[1].replace(",", ""))
    assert 1_000 < kept < 1_900  # a tenth are copies, and the CLIP threshold drops some
    assert re.search(r"with the ledger +\d", printed)


@pytest.mark.slow
def test_judging(capsys, monkeypatch):
    monkeypatch.setenv("JUDGE_ROWS", "2e3")
    monkeypatch.setattr(judging, "FILES", 3)
    judging.run()
    printed = capsys.readouterr().out
    assert "judging 2,000 narrow rows in 3 files" in printed
    steps = re.findall(r"^  (\S.*?) +[\d.]+ s +[\d.]+ M rows/s$", printed, re.MULTILINE)
    assert steps == ["exact copies", "rules", "keeping", "split", "funnel"]
    assert 50 < int(re.search(r"peak memory +(\d+) MiB, within", printed)[1]) < judging.MOST_MIB


def test_rows_to_judge_do_not_depend_on_the_files():
    whole = judging._tables(0, 100, 100)
    begun, ended = judging._tables(0, 37, 100), judging._tables(37, 100, 100)
    for name, table in whole.items():
        assert table.equals(pa.concat_tables([begun[name], ended[name]]).combine_chunks())
    pixels = whole["images"]["pixels"].to_pylist()
    assert (
        len(set(pixels)) == 91
    )  # a tenth are copies; the picture of row 9, which is one, has no other row but 99


def test_engines(capsys, monkeypatch):
    monkeypatch.setattr(engines, "NAMES", ("inprocess", "processes"))
    monkeypatch.setattr(engines, "TASKS", 4)
    engines.run(workers=2)
    printed = capsys.readouterr().out
    assert re.search(r"inprocess +first result after \d", printed)
    assert re.search(r"processes +first result after \d", printed)


@pytest.mark.slow
def test_near_copies(capsys):
    near_copies.run(2 * near_copies.PLANTED)
    assert re.search(r"planted copies +10,000 of 10,000; 10,000 pairs", capsys.readouterr().out)


@pytest.mark.slow
def test_retraining(capsys, monkeypatch):
    monkeypatch.setattr(retraining, "FILES", 50)
    monkeypatch.setattr(retraining, "_PER_FOLDER", 20)
    retraining.run()
    printed = capsys.readouterr().out
    assert "nothing to do, 50 files" in printed
    assert len(re.findall(r" +[\d.]+ s$", printed, re.MULTILINE)) == 3


def test_sharding(capsys, monkeypatch):
    monkeypatch.setattr(sharding, "PICTURES", 5)
    monkeypatch.setattr(sharding, "PAIRS", 50)
    sharding.run()
    printed = capsys.readouterr().out
    assert re.search(r"A ours +[\d.]+ +1\.00", printed)
    assert re.search(r"A by column +[\d.]+ +1\.00", printed)


def test_scoring(capsys, monkeypatch):
    built_in = load_clip(ClipConfig(name="local-dir:curate/starter_clip"))
    monkeypatch.setattr(scoring, "PICTURES", 3)
    monkeypatch.setattr(scoring, "random_scorer", lambda precision: built_in)
    monkeypatch.setattr(scoring, "_start_up", lambda picture: None)
    scoring.run()
    printed = capsys.readouterr().out
    assert "15 pairs" in printed
    assert float(re.search(r"the baseline, fp32: (\S+)", printed)[1]) < 1e-4  # rounded to half


def test_growing(capsys, monkeypatch):
    built_in = load_clip(ClipConfig(name="local-dir:curate/starter_clip"))
    monkeypatch.setattr(growing, "PICTURES", 6)
    monkeypatch.setattr(growing, "NEW", 2)
    monkeypatch.setattr(growing, "random_scorer", lambda precision: built_in)
    growing.run()
    printed = capsys.readouterr().out
    assert re.search(r"B 6 of them known +[\d.]+", printed)
    counts = re.findall(r"  (.*) scored (\d+) pictures", printed)
    assert counts == [
        ("the run before", "6"),
        ("a new run that shares nothing", "8"),
        ("a new run", "2"),
    ]


def test_drawing(capsys, monkeypatch):
    monkeypatch.setattr(drawing, "PICTURES", 2)
    monkeypatch.setattr(drawing, "STEPS", 2)
    drawing.run()
    printed = capsys.readouterr().out
    assert "drawing 2 pictures in 2 steps" in printed
    assert all(name in printed for name in (*drawing.SCHEDULERS, "U-Net alone"))


@pytest.mark.slow
def test_memory(capsys, monkeypatch):
    monkeypatch.setattr(memory, "SIZES", (50, 100))
    memory.run()
    printed = capsys.readouterr().out
    peaks = [int(peak) for peak in re.findall(r"pairs +(\d+) MiB", printed)]
    growth = float(re.search(r"growth (-?[\d.]+)%", printed)[1])
    assert growth == pytest.approx(100 * (peaks[1] / peaks[0] - 1), abs=0.2)
    assert min(peaks) > 200  # a model was loaded


@pytest.mark.slow
@pytest.mark.parametrize("has_wrk", [True, False])
def test_fetching(capsys, monkeypatch, has_wrk):
    rates = {64: 100.0, 4: 50.0} if has_wrk else {64: None, 4: None}
    monkeypatch.setattr(fetching, "_wrk", lambda port, connections: rates[connections])
    for name, value in {"COUNT": 150, "AT_ONE_TIME": (4,), "SECONDS": 1, "SIZES": (20, 60)}.items():
        monkeypatch.setattr(fetching, name, value)
    fetching.run()
    printed = capsys.readouterr().out
    ours = float(
        re.search(r"ours +([\d,]+) img/s +[\d.]+ ms of CPU each", printed)[1].replace(",", "")
    )
    if has_wrk:
        assert float(re.search(r"ratio +([\d.]+)", printed)[1]) == pytest.approx(
            ours / 100, abs=0.02
        )
    else:
        assert "wrk is not installed" in printed
        assert "ratio" not in printed.replace("no ratio", "")
    assert re.search(rf"\n +4 +[\d,]+ +{'50' if has_wrk else '–'} +80\n", printed)
    peaks = [int(peak) for peak in re.findall(r"addresses +(\d+) MiB", printed)]
    assert len(peaks) == 2
    assert min(peaks) > 50


def test_every_benchmark_that_can_be_named_is_there():
    for name in (*BENCHMARKS, *LARGE):
        assert callable(import_module(f"workflows.bench.{name}").run)


def test_an_unknown_benchmark_is_an_error(capsys):
    assert main(["speed"]) == 2
    assert "no benchmark 'speed'" in capsys.readouterr().err
