"""Foreign text is printed without control characters, and the text itself stays readable."""

import io
import sys

import pytest

from curate.run.printable import is_hidden, one_line, printable, printable_output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本 👩‍🚒", "plain ü 日本 👩‍🚒"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("name\u202egnp.exe", "name\\u202egnp.exe"),
        ("c1 \x9b2J", "c1 \\x9b2J"),
        ("lone \ud800", "lone \\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("back\rwards", "back\\rwards"),
    ],
)
def test_hidden_characters_are_written_as_escapes(text, shown):
    assert printable(text) == shown


def test_one_line_is_one_line():
    hidden = [chr(code) for code in range(0x3000) if is_hidden(chr(code))]
    assert one_line("".join(hidden)).isprintable()
    assert len(one_line("a\nb\u2028c\rd").splitlines()) == 1


def test_standard_output_is_printable_and_given_back(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with printable_output():
        print("a\x1b[2Jb")
        assert not sys.stdout.isatty()
    print("\x1b after")
    assert stream.getvalue() == "a\\x1b[2Jb\n\x1b after\n"
