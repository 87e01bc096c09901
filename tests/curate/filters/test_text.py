"""Measures of captions against their definitions, written out slowly."""

import math
import random
import time
import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from curate.filters import blocklist, caption_measures, contacts, repetition, text
from curate.run.schema import UserError


def captions(count=400, seed=0):
    """Captions that repeat words and letters, in several scripts, some empty."""
    draw = random.Random(seed)
    words = [
        "a",
        "red",
        "red.",
        "RED",
        "cat",
        "größe",
        "кошка",
        "猫",
        "हिन्दी",
        "👍🏽",
        "aaaaaaaaaaaaaaaa",
    ]
    some = [draw.sample(words, draw.randint(1, len(words))) for _ in range(count)]
    return [" ".join(draw.choices(few, k=draw.randint(0, 30))) for few in some] + [""]


def counts(items, n):
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def slow_characters(given, n):
    found = sorted(counts(given, n).values(), reverse=True)
    k = min(math.isqrt(len(found)), sum(count > 1 for count in found))
    return sum(found[:k]) / sum(found) if found else 0.0


def slow_words(given, n):
    found = counts(given.lower().split(), n).values()
    return sum(count for count in found if count > 1) / sum(found) if found else 0.0


@pytest.mark.parametrize("block", [7, 1 << 12])
@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_repetition_is_what_its_definition_says(n, block, monkeypatch):
    monkeypatch.setattr(text, "MOST_AT_ONCE", block)
    given = captions()
    for fast, slow in [
        (repetition.of_characters, slow_characters),
        (repetition.of_words, slow_words),
    ]:
        expected = np.array([slow(one, n) for one in given], np.float32)
        np.testing.assert_array_equal(fast(pa.array(given), n), expected)
        assert 0 < expected.mean() < 1


def test_repetition_of_nothing():
    for measure in (repetition.of_characters, repetition.of_words):
        assert measure(pa.array([], pa.string()), 5).shape == (0,)
        assert measure(pa.array(["", "", "abc"]), 5).tolist() == [0, 0, 0]


def test_hashes_know_stretches_by_their_content_alone():
    units = np.array([3, 1, 2, 9, 3, 1, 2, 1, 2], np.uint32)
    found = text.hashes(units, np.array([0, 4, 1, 7, 0]), np.array([3, 7, 3, 9, 2]))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found.tolist())) == 3


def test_counts_of_characters_and_words():
    given = captions()
    pairs = pd.DataFrame({"caption": given}, index=range(5, 5 + len(given)))
    assert caption_measures.characters(pairs).tolist() == [len(one) for one in given]
    assert caption_measures.words(pairs).tolist() == [len(one.split()) for one in given]
    share = [sum(unicodedata.category(c)[0] in "LMN" for c in one) for one in given]
    expected = np.array(share) / [max(1, len(one)) for one in given]
    np.testing.assert_array_equal(caption_measures.alphanumeric(pairs), expected.astype(np.float32))
    assert caption_measures.words(pairs).index.equals(pairs.index)


@pytest.mark.parametrize(
    ("words", "given", "found"),
    [
        (["ass"], "a classy glass", False),
        (["ass"], "an ASS!", True),
        (["ass"], "bass, (ass)", True),
        (["ass"], "ass_1", False),
        (["straße"], "in der STRASSE", True),
        (["strasse"], "die Straße", True),
        (["εργος"], "ΕΡΓΟΣ", True),
        (["über"], "überall", False),
        (["c++"], "uses C++ today", True),
        (["a.b"], "aXb", False),
        (["fine hot"], "hot", False),
        (["hot dog"], "two hot dogs", False),
        (["hot dog"], "a Hot Dog", True),
        (["裸"], "全裸写真", True),
        (["🖕"], "cat🖕🏽", True),
        (["#nsfw"], "cat #nsfw", True),
        (["hot, dog"], "a (hot) dog", True),
    ],
)
def test_blocked_words_are_whole_words_whatever_their_case(words, given, found):
    known = blocklist.read(words)
    assert blocklist.matches(pa.array(["", given, "fine"]), known).tolist() == [
        False,
        found,
        False,
    ]


def test_a_long_blocklist_finds_what_a_slow_search_finds():
    draw = random.Random(0)
    syllables = ["ka", "to", "mi", "no", "re", "größ", "кош", "'"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(600)]
    given = [" ".join(draw.choices(words, k=draw.randint(0, 9))) for _ in range(3000)]
    listed = blocklist.read([word for word in words[:150] if word.strip("'")] + ["kato mi no"])

    def runs(one):
        return "".join(c if c.isalpha() else " " for c in one.casefold()).split()

    def slow(one):
        own = f" {' '.join(runs(one))} "
        return any(f" {' '.join(runs(entry))} " in own for entry in listed)

    expected = [slow(one) for one in given]
    assert blocklist.matches(pa.array(given), listed).tolist() == expected
    assert 0.1 < sum(expected) / len(expected) < 0.9


def test_a_blocklist_is_a_list_or_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeffBad\n\n  very   bad \nbad\n", encoding="utf-8")
    assert blocklist.read(str(path)) == ["bad", "very bad"] == blocklist.read(["very bad", "BAD"])
    with pytest.raises(FileNotFoundError, match=r"filters\.caption\.blocklist=none\.txt"):
        blocklist.read("none.txt")
    path.write_text("\n")
    with pytest.raises(UserError, match="has no words"):
        blocklist.read(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        blocklist.read(str(path))


HELD = {
    "mail a.b+c@cats.example.org now": "mail now",
    "https://cats.example/a?b=1 a cat": "a cat",
    "see www.cats.example": "see",
    "Shop at Cats.COM today": "Shop at today",
    "cats.org/red/1 red": "red",
    "call +49 (0)30 1234-567": "call",
    "call (212) 555-0123": "call",
    "call 212-555-0123 or 1-800-555-0123": "call or",
    "http://localhost/cats a cat": "a cat",
    "(202) 555-0123.jo@x.org a cat": "a cat",
}
FREE = [
    "a cat at 10.30 in 1920x1080, 2010-2015",
    "Canon EOS 5D Mark IV 24-105",
    "ISBN 9783161484100",
    "Dr. Smith vs. Jones. Next one",
    "@cats in the house.de Nada",
    "price + 100 000",
]


def test_contacts_are_found_and_scrubbed():
    given = [*HELD, *FREE]
    assert contacts.has_contact(pa.array(given)).to_pylist() == [c in HELD for c in given]
    for one in given:
        assert contacts.scrub_contacts(one) == HELD.get(one, one)


def test_scrubbed_captions_hold_none_and_others_are_untouched():
    draw = random.Random(0)
    parts = [*HELD, *FREE, "größe", "猫", "@", "www.", "+1", "http://", ".com", "é@x.com"]
    given = [" ".join(draw.choices(parts, k=3)) for _ in range(300)]
    held = contacts.has_contact(pa.array(given)).to_pylist()
    for one, has in zip(given, held, strict=True):
        assert (contacts.scrub_contacts(one) != one) == has
    scrubbed = [contacts.scrub_contacts(one) for one in given]
    assert not any(contacts.has_contact(pa.array(scrubbed)).to_pylist())


def test_scrubbing_changes_what_holds_a_contact_and_nothing_else():
    """RE2's search for one contact is the independent oracle for the runs that Python's re skips."""
    draw = random.Random(1)
    units = [*"aw1.@-+/:_% (", "www.", ".com", "http://", "555-0123", "+4912345678", "(202) "]
    given = [" ".join("".join(draw.choices(units, k=12)).split()) for _ in range(4000)]
    held = contacts.has_contact(pa.array(given)).to_pylist()
    assert 400 < sum(held) < 3600
    assert [contacts.scrub_contacts(one) != one for one in given] == held


@pytest.mark.parametrize(
    "unit",
    [*("0.", "a.", "a@", "x@a.", "+1", "1-", "www.", "a.com-", "a.a.a@", "(123) 456-7890.")],
)
def test_the_time_to_scrub_grows_with_the_length_only(unit):
    """A million characters take a third of a second; they once took hours."""
    caption = unit * (1_000_000 // len(unit))
    start = time.process_time()
    contacts.scrub_contacts(caption)
    assert time.process_time() - start < 5
