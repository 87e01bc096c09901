"""Keys that survive tar files, and captions on one line."""

import hashlib
from itertools import combinations, islice, product

import pytest

from curate.readers.candidate import MAX_KEY_CHARACTERS, clean_caption, key_of

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


def test_of_two_hundred_thousand_names_in_another_script_none_share_a_key():
    """32 bits of hash would give N^2 / 2^33 = 4.7 pairs that share one; the names hold some of those."""
    signs = [chr(0x4E00 + number) for number in range(22)]
    names = list(islice(map("".join, product(signs, repeat=4)), 200_000))

    def distinct(digest_size):
        return {hashlib.blake2b(n.encode(), digest_size=digest_size).digest() for n in names}

    assert len(distinct(4)) < len(names)
    assert len({key_of(name) for name in names}) == len(names)
    assert len({key_of(f"cats/{name}.jpg") for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "start", "digits"),
    [
        ("a b.c", "a-b-c-", 8),
        ("a--b", "a--b-", 8),
        ("x" * 85 + " y", "x" * 78 + "-", 16),
        ("x" * 84 + " y", "x" * 84 + "-y-", 8),
        ("...", "", 16),
        ("caf\xe9", "caf-", 16),
        ("x" * 96, "x" * 78 + "-", 16),
        ("caf\udce9", "caf-", 16),
    ],
)
def test_hashes_are_long_where_they_alone_tell_names_apart(name, start, digits):
    encoded = name.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(encoded, digest_size=digits // 2).hexdigest()
    assert key_of(name) == start + digest


def test_plain_names_are_their_own_keys():
    assert key_of("train2017-000000000009") == "train2017-000000000009"


def test_captions_are_one_line_without_controls():
    assert clean_caption(" a\x00 cat\r\n\ton\u00a0it \x1b[31m") == "a cat on it [31m"
