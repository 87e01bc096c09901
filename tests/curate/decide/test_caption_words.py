"""What captions share, against sets of words; which pictures share what is rare, against comparing all."""

from collections import Counter
from itertools import combinations
from math import log

import numpy as np
import pytest

from curate.decide import caption_words
from curate.decide.caption_words import CaptionWords

HANDS = ("waving", "raised", "folded", "open", "pinching")


def of(captions, groups=None):
    groups = np.arange(len(captions)) if groups is None else np.array(groups)
    return CaptionWords.of(captions, np.arange(len(captions)), groups)


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
    words = CaptionWords.of(["a dog", "brown fur", "brown dog"], np.array([0, 0, 1]), np.arange(2))
    assert words.starts.tolist() == [0, 4, 6]


def test_a_word_of_every_caption_weighs_nothing():
    words = of(["a photo of a dog"] * 5 + ["a photo of a cat"] * 5)
    assert words.shared(np.array([0, 0]), np.array([1, 5])).tolist() == [1, 0]
    assert of(["the same"] * 4).shared(np.array([0]), np.array([1])).tolist() == [0]


def pairs_of(words, most):
    found = {
        tuple(sorted(pair)) for block in words.sharing(most) for pair in zip(*block, strict=True)
    }
    return {(int(a), int(b)) for a, b in found}


@pytest.mark.parametrize("most", [2, 4, 9])
def test_pairs_that_share_what_is_rare(most, monkeypatch):
    captions = random_captions(200, words=30)
    bags = [set(caption.split()) for caption in captions]
    words = of(captions)
    having = Counter(w for bag in bags for w in bag)
    rank = {w: (having[w], caption_words._hash(w)) for w in having}  # ties as in the code
    keys = []
    for bag in bags:
        rarest = sorted(bag, key=rank.__getitem__)[: caption_words.RAREST]
        keys.append({*((w,) for w in rarest), *combinations(sorted(rarest), 2), frozenset(bag)})
    count = Counter(key for own in keys for key in own)
    expected = {
        (a, b)
        for a, b in combinations(range(200), 2)
        if any(count[key] <= most for key in keys[a] & keys[b])
    }
    assert pairs_of(words, most) == expected
    assert len(expected) > 50
    monkeypatch.setattr(caption_words, "_KEYS", 100)  # so in many parts
    assert pairs_of(words, most) == expected


def test_copies_make_no_caption_common_and_none_is_its_own_sibling():
    captions = ["blue bird"] * 30 + ["blue bird sings"] + random_captions(60)
    words = of(captions, [0] * 30 + list(range(1, 62)))
    assert (0, 30) in pairs_of(words, 2)
    assert all(b >= 30 for _, b in pairs_of(words, 2))


def test_no_captions():
    words = of(["", "!"])
    assert list(words.sharing(2)) == []
    assert words.shared(np.array([0]), np.array([1])).tolist() == [0]
