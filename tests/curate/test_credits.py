"""Every kept picture is credited once, whatever its source says."""

import csv
import io

import pandas as pd
import pytest

from curate.credits import as_csv, as_markdown, credited, licences
from curate.run.schema import UserError


def change(curate_dir, key, **values):
    for path in sorted((curate_dir / "ledger").iterdir()):
        table = pd.read_parquet(path)
        for name, value in values.items():
            if key:
                table.loc[table["key"] == key, name] = value
            else:
                table[name] = value
        table.to_parquet(path, index=False)


def test_the_kept_and_their_licences(finished):
    table = credited(finished)
    assert table["key"].tolist() == [f"k{i:02d}" for i in range(24) if i not in (3, 4, 6)]
    assert licences(table) == {"not stated": 11, "CC0": 10}
    assert list(table.columns) == ["key", "source", "licence", "url"]


def test_csv_survives_commas_and_quotes(finished):
    change(finished, "k02", author='Ann, "A"\nB', license="CC BY", licence="")
    rows = list(csv.DictReader(io.StringIO(as_csv(credited(finished)))))
    assert len(rows) == 21
    assert rows[2] | {"key": "k02", "licence": "CC BY", "author": 'Ann, "A"\\nB'} == rows[2]


def test_no_cell_is_a_formula_to_a_spreadsheet(finished):
    for author in ("=HYPERLINK(1)", "+1", "-1", "@x", " =1", "\t=1"):
        change(finished, "k02", author=author)
        rows = list(csv.DictReader(io.StringIO(as_csv(credited(finished)))))
        assert rows[2]["author"].startswith("'") or rows[2]["author"].startswith("\\t")
    change(finished, "k02", author="a\x1b[2Jb\u202ec")
    assert "a\\x1b[2Jb\\u202ec" in as_csv(credited(finished))
    assert "\x1b" not in as_markdown(credited(finished))


def test_markdown_shows_hostile_words_as_words(finished):
    change(finished, "k02", author="a|b [x](javascript:1) <script>", url="https://x.org/a|b> c")
    text = as_markdown(credited(finished))
    assert "| not stated | 11 |" in text
    line = next(line for line in text.splitlines() if line.startswith("| k02 "))
    assert r"a\|b \[x\](javascript:1) \<script\>" in line
    assert "<https://x.org/a%7Cb%3E%20c>" in line


def test_numbers_and_marks_for_unknown(finished):
    change(finished, "", licence="?", LICENSE="unknown")
    assert licences(credited(finished)) == {"not stated": 21}
    change(finished, "", license=4)
    assert licences(credited(finished)) == {"4": 21}
    change(finished, "k02", licence="CC BY")
    assert licences(credited(finished)) == {"4": 20, "CC BY": 1}


def test_nobody_to_credit(finished):
    change(finished, "", kept=False)
    with pytest.raises(UserError, match="keeps no picture"):
        credited(finished)
