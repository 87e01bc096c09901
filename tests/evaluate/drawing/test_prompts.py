"""Prompts are read from files of three forms; what is wrong in one is named by file and line."""

import json

import pytest

from curate.run.schema import UserError
from evaluate.drawing.prompts import LONGEST, gather, read


@pytest.fixture
def write(tmp_path):
    def written(content, name="prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def test_plain_text_one_a_line(write):
    path = write(b'\xef\xbb\xbfa dog\r\n\r\n  a cat, "big": (very:1.3) \r\n{not json\n', "list.txt")
    with pytest.raises(UserError, match="nothing"):
        gather([], [], None)
    found = read(path)
    assert [p.text for p in found] == ["a dog", 'a cat, "big": (very:1.3)', "{not json"]
    assert [p.line for p in found] == [1, 3, 4]
    assert found[0].file == str(path)


def test_a_table_as_partiprompts_has_it(write):
    text = 'Prompt\tCategory\tNote\nbond\tAbstract\t\nthe word "START\tSigns\tb\n'
    found = read(write(text, "any.tsv"))
    assert [(p.text, p.line) for p in found] == [("bond", 2), ('the word "START', 3)]
    assert found[0].tags == {"Category": "Abstract"}
    assert found[1].tags == {"Category": "Signs", "Note": "b"}


def test_the_column_may_be_anywhere(write):
    assert [p.text for p in read(write("id\tprompt\n7\ta fox"))] == ["a fox"]


def test_json_lines_as_geneval_has_them(write):
    line = json.dumps({"tag": "counting", "include": [{"class": "dog"}], "prompt": "two dogs"})
    [found] = read(write(f"{line}\n\n", "evaluation_metadata.jsonl"))
    assert (found.text, found.line, found.tags) == ("two dogs", 1, {"tag": "counting"})


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "a.txt", "is empty"),
        (b"\n \n", "a.txt", "is empty"),
        (b"a dog\n\xff\xfe\n", "a.txt", "line 2 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", "a.png", "line 1 is not UTF-8"),
        (b"GIF89a\x00\x01\n", "a.gif", r"line 1 holds the character U\+0000"),
        (b"a\x1b[2J\n", "a.txt", r"line 1 holds the character U\+001B"),
        (b"a dog\na\tb\n", "a.txt", "line 2 has a tab"),
        (b"file\tsha\nx\ty\n", "a.txt", "line 1: a table with tabs needs one column named Prompt"),
        (b"Prompt\tprompt\nx\ty\n", "a.tsv", "needs one column named Prompt"),
        (b"Prompt\tNote\na\tb\tc\n", "a.tsv", "line 2 has 3 columns, and the first line 2"),
        (b"Note\tPrompt\nb\n", "a.tsv", "line 2 has no text in the column Prompt"),
        (b"Prompt\tNote\n \tx\n", "a.tsv", "line 2 has no text"),
        (b'{"prompt": "a"}\nplain\n', "a.jsonl", "line 2 cannot be read as JSON"),
        (b'{"text": "a"}\n', "a.jsonl", 'line 1 is no object with a text under the key "prompt"'),
        (b'{"prompt": 3}\n', "a.jsonl", "line 1 is no object"),
        (b'{"prompt": "a"}\n["b"]\n', "a.jsonl", "line 2 is no object"),
        (b'{"prompt": " "}\n', "a.jsonl", "line 1 is empty"),
        (b'{"prompt": "\\ud800"}\n', "a.jsonl", r"U\+D800"),
        (b"[" * 100_000, "a.jsonl", "characters"),
        (b'{"a":' * 20_000, "a.jsonl", "line 1 cannot be read as JSON"),
        (b'[{"prompt": "a"}]', "a.json", "form that is not read"),
        (b"prompt,seed\na,1\n", "a.csv", "form that is not read"),
        (b"x" * (LONGEST + 1), "a.txt", "line 1 has 10001 characters"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(write, content, name, says):
    path = write(content, name)
    with pytest.raises(UserError, match=says) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 800
    assert "\x1b" not in str(refused.value).replace(str(path), "")


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'prompt_file=.*a red fox.*prompt="a red fox"'):
        read(tmp_path / "a red fox")


def test_all_prompts_once_in_order(write):
    path = write("a cat\na dog\na cow\n")
    found = gather(["a dog", "two\u2028lines"], [str(path)], 3)
    assert [p.text for p in found] == ["a dog", "two lines", "a cat"]
    assert [p.line for p in found] == [None, None, 1]
    for text in ("", " \n", "a\x00b"):
        with pytest.raises(UserError, match=r"^prompt"):
            gather([text], [], None)
