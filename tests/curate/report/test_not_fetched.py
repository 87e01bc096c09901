"""Why pictures were not fetched, in funnel.json, on the terminal and in the report."""

import re
from html import unescape
from pathlib import Path

import pytest

from curate.measures.not_fetched import error_of, location_of
from curate.report import figures, headline, not_fetched, sheets
from tests.curate.report.test_curation import HOSTILE, make_verdicts, rows, with_rows
from tests.curate.small_ledgers import all_rows

GONE = {
    "state": "not_found",
    "text": "nothing is there (404, 410)",
    **{"images": 3, "pairs": 5, "share": 3 / 200, "asked_again": False},
}
LATE = {
    "state": "timeout",
    "text": "no whole answer in time",
    **{"images": 1, "pairs": 2, "share": 1 / 200, "asked_again": True},
}


@pytest.fixture
def verdicts():
    """Of 200 images with two captions each: three that are gone, one of them with one caption; one timeout."""
    found = make_verdicts()
    table = all_rows(found.ledger)
    table["url"] = [f"http://x/{key}.jpg" for key in table["key"]]
    for state, keys in (("not_found", ["k1", "k5", "k7"]), ("timeout", ["k9"])):
        rows = table["key"].isin(keys)
        table.loc[rows, "location"] = location_of(state)
        table.loc[rows, "reason"] = f"unreadable: {error_of(state)}"
        table.loc[rows, ["status", "rule", "kept", "split"]] = ["unreadable"] * 2 + [False, ""]
    table.loc[table["key"] == "k5", "url"] = HOSTILE
    return with_rows(found, table.drop(index=table.index[table["key"] == "k7"][1]))


def test_the_figures_count_images_by_state(verdicts):
    assert figures.summarise(verdicts, [])["not_fetched"] == [GONE, LATE]
    line = "not fetched: 4 images (3 nothing is there (404, 410); 1 no whole answer in time)"
    assert not_fetched.line([GONE, LATE]) == line
    assert line in figures.lines(figures.summarise(verdicts, []))


def test_a_line_names_few_states():
    line = not_fetched.line([GONE] * 5 + [LATE] * 7)
    assert line.startswith("not fetched: 22 images (3 nothing")
    assert line.endswith("; 7 for other reasons)")


def test_other_data_sets_have_no_such_figures():
    assert "not_fetched" not in figures.summarise(make_verdicts(), [])


def test_the_section_says_why_and_what_to_type(verdicts):
    html = not_fetched.section(Path("runs/web/curate"), verdicts.ledger, [GONE, LATE])
    text = " ".join(unescape(re.sub("<[^>]+>", " ", html)).split())
    assert "The pictures of 4 images (2.0%) were not fetched. 1 of these failures may pass" in text
    assert "python -m curate.retry web" in text
    assert "not_found nothing is there (404, 410) 3 1.5% no" in text
    assert "timeout no whole answer in time 1 0.5% yes" in text
    assert "http://x/k9.jpg" in text
    assert "<img" not in html
    expressions = re.findall(r'title="(.*?)">([\d,]+)<', html)
    assert len(expressions) == 2
    for expression, number in expressions:
        assert eval(unescape(expression), {"ledger": rows(verdicts)}) == int(number)
    gone = not_fetched.section(Path("runs/web/curate"), verdicts.ledger, [GONE])
    assert "None of these failures is one that may pass." in gone


def test_they_are_told_from_pictures_that_cannot_be_read(verdicts):
    [section] = sheets.unreadable(verdicts)
    assert "404" not in section.body
    expression, number = re.findall(r'title="(.*?)">([\d,]+)<', section.body)[0]
    assert eval(unescape(expression), {"ledger": rows(verdicts)}) == int(number.replace(",", ""))
    funnel = figures.summarise(verdicts, [])
    unread = int((rows(verdicts)["status"] == "unreadable").sum())
    funnel["rules"] = [{"rule": "unreadable", "dropped": unread, "left": 0}]
    said = headline.banner(verdicts, funnel)
    assert f"7 have a picture that was not fetched; {unread - 7} have a picture that cannot" in said
