"""Progress on a terminal and in a log file, and of resumed work."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.run.progress import EVERY_S, Bar, count_done

ROOT = Path(__file__).resolve().parents[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("tqdm.std.time", found)
    monkeypatch.setattr("curate.run.progress.time", found)
    monkeypatch.delenv("TQDM_MININTERVAL", raising=False)
    return found


@pytest.mark.parametrize("disable", [False, True])
def test_work_of_an_earlier_run_is_counted(disable):
    """``TQDM_DISABLE=1``, as CI sets it, makes bars that lack most of their attributes."""
    with Bar(total=5, file=io.StringIO(), disable=disable) as bar:
        count_done(bar, 3)
        bar.update(1)
        assert disable or (bar.n, bar.initial) == (4, 3)


def lines(clock: Clock, work: Callable[[Bar], None] | None = None, **options) -> list[str]:
    """What 100 pictures, one in each second, leave in a file."""
    file = io.StringIO()
    with Bar(**{"total": 100, "desc": "train", "unit": "img", "file": file, **options}) as bar:
        for _ in range(100):
            clock.now += 1
            if work:
                work(bar)
            bar.update()
    text = file.getvalue()
    assert not {"\r", "\x1b", "█"} & set(text)
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def test_a_log_file_gets_a_line_now_and_then_with_rate_and_time_left(clock):
    assert lines(clock) == [
        "train: 30 of 100 img, 1 img/s, 01:10 left",
        "train: 60 of 100 img, 1 img/s, 00:40 left",
        "train: 90 of 100 img, 1 img/s, 00:10 left",
        "train: 100 of 100 img in 01:40, 1 img/s",
    ]
    assert EVERY_S == 30


def test_other_output_brings_no_more_lines(clock, capsys):
    """tqdm's own write shows all bars again each time."""
    found = lines(clock, lambda bar: bar.write("something is damaged", file=bar.fp))
    assert [line for line in found if line.startswith("train: ")] == lines(clock)
    assert found.count("something is damaged") == 100


def test_work_that_is_soon_over_has_its_end_alone_or_nothing(clock):
    def short(**options) -> str:
        file = io.StringIO()
        with Bar(total=3, desc="check", unit="file", file=file, **options) as bar:
            clock.now += 2
            bar.update(3)
        return file.getvalue()

    assert short() == "check: 3 of 3 file in 00:02, 1.5 file/s\n"
    assert short(leave=False) == ""
    assert short(delay=5) == ""
    assert short(disable=True) == ""


def test_what_was_there_is_not_in_the_rate(clock):
    def resumed(bar: Bar) -> None:
        if bar.n == 0:
            count_done(bar, 1_000)

    found = lines(clock, resumed, total=2_000)
    assert found[0] == "train: 1,030 of 2,000 img, 1 img/s, 16:10 left"
    assert found[-1] == "train: 1,100 of 2,000 img in 01:40, 1 img/s"


def test_work_that_is_slow_says_its_seconds(clock):
    file = io.StringIO()
    with Bar(total=4, desc="draw", unit="picture", file=file) as bar:
        for _ in range(2):
            clock.now += 40
            bar.update()
    assert file.getvalue().splitlines()[-2:] == [
        "draw: 2 of 4 picture, 40 s/picture, 01:20 left",
        "draw: 2 of 4 picture in 01:20, 40 s/picture",
    ]


def test_a_value_beside_the_count(clock):
    found = lines(clock, lambda bar: bar.set_postfix(loss="0.5", refresh=False))
    assert found[0] == "train: 30 of 100 img, 1 img/s, 01:10 left, loss=0.5"


def test_the_interval_is_tqdms_own_variable(clock, monkeypatch):
    monkeypatch.setenv("TQDM_MININTERVAL", "50")
    assert [line.split()[1] for line in lines(clock)] == ["50", "100", "100"]


def test_without_a_total_and_over_an_iterable(clock):
    file = io.StringIO()
    for _ in Bar(iter(range(40)), desc="count", unit="img", file=file):
        clock.now += 1
    assert file.getvalue().splitlines() == [
        "count: 30 img, 1 img/s",
        "count: 40 img in 00:40, 1 img/s",
    ]


def test_a_terminal_has_a_bar(clock):
    file = Terminal()
    with Bar(total=100, desc="train", unit="img", file=file, ascii=True, ncols=60) as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    assert file.getvalue().count("\r") > 50
    assert "100%|" in file.getvalue()


def test_standard_error_decides(monkeypatch):
    for stream, expected in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Bar(total=1, unit="img") as bar:
            bar.update()
        assert ("\r" in stream.getvalue()) is expected


def test_progress_is_made_in_one_place():
    """A bar of tqdm itself would fill the log files."""
    packages = ("curate", "finetune", "evaluate", "workflows")
    files = [path for name in packages for path in sorted((ROOT / name).rglob("*.py"))]
    using = [path for path in files if "import tqdm" in path.read_text("utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in using] == ["curate/run/progress.py"]
