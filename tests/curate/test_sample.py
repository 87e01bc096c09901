"""Keys that survive tar files, and captions on one line."""

from itertools import combinations

import pytest

from curate.sample import MAX_KEY_CHARACTERS, clean_caption, key_of

NAMES = [
    "a",
    "a b",
    "a.b",
    "a-b",
    "a/b",
    "a--b",
    "b--a",
    "b/a",
    "ä",
    "ö",
    "日本",
    "x" * 300,
    "x" * 301,
    "A",
]


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_safe(name):
    key = key_of(name)
    assert 0 < len(key) <= MAX_KEY_CHARACTERS
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert key == key_of(name)


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
def test_two_names_never_share_a_key(one, other):
    assert key_of(one) != key_of(other)


def test_plain_names_are_their_own_keys():
    assert key_of("train2017-000000000009") == "train2017-000000000009"


def test_captions_are_one_line_without_controls():
    assert clean_caption(" a\x00 cat\r\n\ton\u00a0it \x1b[31m") == "a cat on it [31m"
