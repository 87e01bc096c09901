"""What captions share, against sets of words."""

from collections import Counter
from itertools import combinations
from math import log

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import caption_words
from curate.decide.caption_words import CaptionWords, few_of, word_hashes
from tests.curate.decide.narrow_tables import database

HANDS = ("waving", "raised", "folded", "open", "pinching")


def of(captions, groups=None, pictures=None):
    """The words of all captions, of one picture each unless ``pictures`` says otherwise."""
    owner, hashes = word_hashes(captions)
    owner = owner if pictures is None else np.array(pictures)[owner]
    count = int(owner.max(initial=-1)) + 1 if pictures else len(captions)
    groups = np.arange(count) if groups is None else np.array(groups)
    pairs = {(word, groups[place]) for place, word in zip(owner, hashes, strict=True)}
    common = Counter(word for word, _ in pairs)
    having = np.array([common[word] for word in hashes], np.int64)
    return CaptionWords.of(owner, hashes, having, count, len(set(groups)))


def random_captions(count, words=40, seed=0):
    rng = np.random.default_rng(seed)
    frequent = 1 / np.arange(1, words + 1)
    return [
        " ".join(f"w{n}" for n in rng.choice(words, rng.integers(1, 7), p=frequent / sum(frequent)))
        for _ in range(count)
    ]


def weights_of(bags, groups):
    having = {(word, group) for bag, group in zip(bags, groups, strict=True) for word in bag}
    counts = Counter(word for word, _ in having)
    return {word: log(len(set(groups)) / count) for word, count in counts.items()}


def test_shared_weights_are_those_of_sets():
    captions, groups = random_captions(60), [n // 2 for n in range(60)]
    bags = [set(caption.split()) for caption in captions]
    weights = weights_of(bags, groups)
    one, other = map(np.array, zip(*combinations(range(60), 2), strict=True))
    found = of(captions, groups).shared(one, other)
    for a, b, value in zip(one, other, found, strict=True):
        lighter = min(sum(weights[w] for w in bags[n]) for n in (a, b))
        both = sum(weights[w] for w in bags[a] & bags[b])
        assert value == pytest.approx(both / lighter if lighter else 0, abs=1e-6)
    assert 0 < found.mean() < 0.5


def test_rare_words_say_more_than_modifiers():
    tones = [f"{hand} hand {tone} skin tone" for hand in HANDS for tone in ("light", "dark")]
    words = of([*tones, *(f"something{n}" for n in range(20))])
    tone, gesture = words.shared(np.array([0, 0]), np.array([1, 2]))
    assert tone > 0.75 > gesture


def test_a_caption_within_another_and_one_without_spaces():
    words = of(["a red apple", "A red apple, on a table", "", "手を振る", "手を振る人", "other"])
    assert words.shared(np.array([0, 3, 2, 0]), np.array([1, 4, 2, 3])).tolist() == [1, 1, 0, 0]


def test_all_captions_of_a_picture_count_together():
    words = of(["a dog", "brown fur", "brown dog"], pictures=[0, 0, 1])
    assert words.starts.tolist() == [0, 4, 6]


def test_a_word_of_every_caption_weighs_nothing():
    words = of(["a photo of a dog"] * 5 + ["a photo of a cat"] * 5)
    assert words.shared(np.array([0, 0]), np.array([1, 5])).tolist() == [1, 0]
    assert of(["the same"] * 4).shared(np.array([0]), np.array([1])).tolist() == [0]


def test_each_word_of_a_caption_once_in_order():
    long = "x " * 1_000 + "late"
    owner, hashes = word_hashes(["b a B", "", "!", "a", long])
    assert owner.tolist() == [0, 0, 3, 4]
    a, b, x = (caption_words._hash(word) for word in "abx")
    assert hashes.tolist() == [*sorted((a, b)), a, x]
    assert [len(found) for found in word_hashes([])] == [0, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_groups_that_have_a_word_are_counted_as_sets(tmp_path, threads):
    captions, rng = random_captions(300), np.random.default_rng(0)
    images, groups = rng.integers(0, 100, 300), rng.integers(0, 40, 100)
    owner, hashes = word_hashes(captions)
    words = pa.table({"image": images[owner], "word": hashes})
    of_image = pa.table({"image": np.arange(90), "name": groups[:90]})
    asked = np.array([7, 3, 95, 50])
    with database(tmp_path, 300_000_000, threads, words=words, members=of_image) as connection:
        caption_words.create_having(
            connection, "counted", "SELECT * FROM words", "SELECT * FROM members"
        )
        found = dict(connection.sql("SELECT word, groups FROM counted").fetchall())
        read = CaptionWords.read(connection, asked, "SELECT * FROM words", "counted", 40)
    having = {
        (word, groups[image])
        for word, image in zip(hashes, images[owner], strict=True)
        if image < 90
    }
    assert found == Counter(word for word, _ in having)
    of_each = [{*hashes[images[owner] == image]} & {*found} for image in asked]
    assert np.diff(read.starts).tolist() == [len(words) for words in of_each]
    for place, words in enumerate(of_each):
        expected = sorted(log(40 / found[word]) for word in words)[::-1]
        own = read.weights[read.words[read.starts[place] : read.starts[place + 1]]]
        assert own.tolist() == pytest.approx(expected)


def test_few_groups_are_a_tenth_and_two_to_thirty_two():
    assert [few_of(groups) for groups in (1, 20, 39, 40, 319, 320, 10**9)] == [
        2,
        2,
        3,
        4,
        31,
        32,
        32,
    ]
