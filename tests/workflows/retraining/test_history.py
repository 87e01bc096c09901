"""The history says of each retraining what was planted, as a table, as JSON and as a page."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest

from curate.run.schema import UserError
from tests.workflows.retraining import planted
from workflows import history
from workflows.retraining import history_page, timeline
from workflows.retraining.series import Current, Series

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())


@pytest.fixture
def series(tmp_path):
    return planted.plant(tmp_path / "runs", 9)


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["history", *map(str, arguments)])
    history.main()
    return capsys.readouterr().out


def test_a_line_for_each_retraining(series, monkeypatch, capsys):
    out = run_command(monkeypatch, capsys, "mine", "--root", series.root)
    lines = out.splitlines()
    assert lines[0].startswith("mine: in use is mine-0008 since 2026-02-22 03:57 UTC (promoted), ")
    assert lines[0].endswith("/mine-0008/finetune/export-step-00000200")
    rows = [line for line in lines if re.match(r"[* ]  mine-\d{4}", line)]
    assert len(rows) == 9
    assert [line for line in rows if line.startswith("*")] == [rows[7]]
    assert rows[0].split()[:4] == ["mine-0001", "2026-01-04", "2,867", "71.7%"]
    assert "-20.2 % [-23.2, -17.2]" in rows[0]
    assert "+0.842 [+0.742, +0.942]" in rows[0]
    assert f"rejected: {planted.ENDS['rejected']}" in rows[6]
    assert re.search(r"improving +failed +rejected", rows[6])
    assert rows[8].split()[4:] == [*"––––", "abandoned:", *planted.ENDS["abandoned"].split()]
    assert lines[-1] == f"page    {series.folder / 'history.html'}"


def test_figures_of_a_deleted_run_stay(series):
    before = timeline.of(series)
    shutil.rmtree(series.run_dir("mine-0002"))
    after = timeline.of(series)
    assert after.retrainings[1].summary == before.retrainings[1].summary
    assert after.retrainings[1].pages == {}
    assert before.retrainings[1].pages["evaluation"] == "mine-0002/evaluate/report.html"


def test_a_retraining_under_way_and_one_without_its_line_are_listed(series):
    planted.retrain(series, 10, "")
    found = timeline.of(series)
    assert found.retrainings[-1].outcome == timeline.RUNNING
    assert found.last == found.retrainings[-2]
    # killed between writing its record and the line of the history
    path = series.folder / "history.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert timeline.of(series).retrainings == found.retrainings


def test_a_return_by_hand_moves_the_mark_alone(series, monkeypatch, capsys):
    back = Current(
        "mine-0004", "mine-0004/e", "2026-03-01T10:00:00+00:00", "rolled back", "mine-0008"
    )
    series.point_to(back)
    series.add("rolled back", "mine-0004", "Colours were off.")
    found = timeline.of(series)
    assert [each.run for each in found.retrainings if each.is_current] == ["mine-0004"]
    assert found.retrainings[3].outcome == "promoted"
    out = run_command(monkeypatch, capsys, "--root", series.root)
    assert "rolled back: Colours were off." in out
    said = text_of(history_page.render(found))
    assert (
        "mine-0004 is in use since 2026-03-01 10:00 UTC: it was rolled back. Before it mine-0008 was."
        in said
    )


def test_json_holds_the_summaries(series, monkeypatch, capsys):
    found = json.loads(run_command(monkeypatch, capsys, "--root", series.root, "--json"))
    assert found["current"]["run"] == "mine-0008"
    assert [each["run"] for each in found["retrainings"]] == [f"mine-{n:04d}" for n in range(1, 10)]
    assert found["retrainings"][0]["summary"]["data"]["pairs_in"] == 4000


def test_what_to_type_where_the_series_is_not_clear(series):
    assert history.chosen(series.root, None) == series
    assert history.chosen(series.root, "mine-series") == series
    Series(series.root, "other").folder.mkdir()
    with pytest.raises(
        UserError, match=r"holds 2 series; type one of\n  python -m workflows.history mine --root"
    ):
        history.chosen(series.root, None)
    with pytest.raises(
        UserError, match=r"holds no series mina; type\n  python -m workflows.history mine --root"
    ):
        history.chosen(series.root, "mina")
    with pytest.raises(
        UserError, match=r"holds no series of retrainings; type first: python -m workflows.retrain"
    ):
        history.chosen(series.root / "nowhere", None)


# The page


def test_the_page_begins_with_what_is_in_use_and_how_the_last_one_ended(series):
    path = history_page.write(series)
    said = text_of(path.read_text())
    assert path == series.folder / "history.html"
    start = said.index("Now In use")
    assert said[start:].startswith(
        "Now In use mine-0008 is in use since 2026-02-22 03:57 UTC: its retraining promoted it. Before it mine-0006 was. "
        "Last retraining i abandoned mine-0009 was abandoned, 2026-03-01 03:57 UTC. Settings changed"
    )
    for outcome in ("promoted", "rejected", "undecided"):
        assert html.escape(planted.ENDS[outcome], quote=False) in path.read_text()


@pytest.mark.parametrize("count", [0, 1, 60])
def test_any_number_of_retrainings_makes_a_page(tmp_path, count):
    shown = history_page.render(timeline.of(planted.plant(tmp_path, count)))
    assert len(shown.encode()) < 5_000_000
    figures = sum(tag == "figure" for tag, _ in Elements(shown).found)
    assert figures == (3 if count else 0)


def test_links_lead_to_reports_that_are_there(series):
    shutil.rmtree(series.run_dir("mine-0002"))
    path = history_page.write(series)
    links = [a["href"] for tag, a in Elements(path.read_text()).found if tag == "a"]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == 8 * 3
    assert all((path.parent / link).resolve().is_file() for link in files)


def test_text_from_runs_stays_text(series):
    planted.retrain(series, 10, "rejected", sentence=HOSTILE)
    shown = history_page.render(timeline.of(series))
    assert not {"script", "img"} & {tag for tag, _ in Elements(shown).found}
    assert html.escape(HOSTILE, quote=False) in shown
