"""File names that differ in spelling only."""

from curate.readers.names import normalised


def test_composed_and_decomposed_names_are_one():
    assert normalised("cafe\u0301/a\u0308.jpg") == normalised("caf\u00e9/\u00e4.jpg")


def test_backslashes_separate_folders():
    assert normalised("train2017\\1.jpg") == "train2017/1.jpg"
