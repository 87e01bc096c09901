"""Which pictures share what is rare, against comparing all; their words, against those in memory."""

from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import caption_words, rare_words
from curate.decide.caption_words import create_having, word_hashes
from curate.decide.number_files import NumberFile
from curate.decide.rare_words import Pictures
from curate.run.database import blocks
from tests.curate.decide.naive_caption_words import CaptionWords as Naive
from tests.curate.decide.narrow_tables import database
from tests.curate.decide.test_caption_words import random_captions


def stored(folder, captions, groups=None, most=2):
    """Pictures whose hashes ascend as the captions do, an image in every third row."""
    count = len(captions)
    images = np.arange(count) * 3
    groups = np.arange(count) if groups is None else np.array(groups)
    owner, hashes = word_hashes(captions)
    tables = {
        "images": pa.table({"image": images, "number": np.arange(count, dtype=np.uint64) + 5}),
        "words": pa.table({"image": images[owner], "word": hashes}),
        "copy_groups": pa.table({"image": images, "name": groups.astype(np.uint64)}),
    }
    folder.mkdir(exist_ok=True)
    with database(folder, 300_000_000, **tables) as connection:
        create_having(
            connection, "having_it", "SELECT image, word FROM words", "SELECT * FROM copy_groups"
        )
        return Pictures(connection, "having_it", folder, lambda count: most)


def pairs_of(pictures, *most):
    found = {
        tuple(sorted(pair))
        for block in pictures.sharing(*most)
        for pair in zip(*block, strict=True)
    }
    return {(int(a), int(b)) for a, b in found}


@pytest.mark.parametrize("most", [2, 4, 9])
def test_pairs_that_share_what_is_rare(tmp_path, most, monkeypatch):
    captions = random_captions(200, words=30)
    bags = [set(caption.split()) for caption in captions]
    having = Counter(w for bag in bags for w in bag)
    rank = {w: (having[w], caption_words._hash(w)) for w in having}  # ties as in the code
    keys = []
    for bag in bags:
        rarest = sorted(bag, key=rank.__getitem__)[: rare_words.RAREST]
        keys.append({*((w,) for w in rarest), *combinations(sorted(rarest), 2), frozenset(bag)})
    count = Counter(key for own in keys for key in own)
    expected = {
        (a, b)
        for a, b in combinations(range(200), 2)
        if any(count[key] <= most for key in keys[a] & keys[b])
    }
    assert pairs_of(stored(tmp_path, captions, most=most)) == expected
    assert len(expected) > 50
    monkeypatch.setattr(rare_words, "_KEYS", 100)  # so in many buckets
    assert pairs_of(stored(tmp_path / "buckets", captions, most=most)) == expected


def test_files_are_opened_once_for_as_many_keys_as_fit_in_memory(tmp_path, monkeypatch):
    captions = random_captions(200, words=30)
    expected = pairs_of(stored(tmp_path / "one", captions, most=4))
    appended = []

    class Counted(NumberFile):
        def append(self, values):
            if self.path.name.startswith("keys-"):
                appended.append(len(values))
            super().append(values)

    monkeypatch.setattr(rare_words, "NumberFile", Counted)
    monkeypatch.setattr(rare_words, "blocks", lambda *asked: blocks(*asked, 8))
    monkeypatch.setattr(rare_words, "_KEYS", 500)
    pictures = stored(tmp_path / "many", captions, most=4)
    files = len(list((tmp_path / "many").glob("keys-*")))
    assert files == 9  # for 200 pictures of 22 keys at most
    assert len(appended) <= files * (1 + sum(appended) // 500)
    assert pairs_of(pictures) == expected != set()


def test_as_the_oracle(tmp_path, monkeypatch):
    """Crowded groups, words of one group, pictures without words, ties of words in rareness."""
    rng = np.random.default_rng(0)
    captions = [*random_captions(300, words=80), "", "!", "", *random_captions(30, seed=1)]
    captions += [f"{text} 犬{n % 40}" for n, text in enumerate(random_captions(150, seed=2))]
    captions[0] = captions[-1] = ""
    groups = np.minimum.reduceat(rng.permutation(len(captions)), np.arange(len(captions)))
    groups[:60], groups[100:200] = groups[60], np.repeat(groups[200:220], 5)
    naive = Naive.of(captions, np.arange(len(captions)), np.unique(groups, return_inverse=True)[1])
    pictures = stored(tmp_path, captions, groups)
    assert pictures.count == len(set(groups))
    for most in (2, 5, 32):
        of_most = stored(tmp_path / str(most), captions, groups, most)
        assert pairs_of(of_most) == pairs_of(naive, most) != set()
    one, other = rng.integers(0, len(captions), (2, 5_000))
    expected = naive.shared(one, other)
    np.testing.assert_array_equal(pictures.shared(one, other), expected)
    assert 0 < (expected == 0).sum() < 5_000
    monkeypatch.setattr(rare_words, "_PAIRS", 77)
    np.testing.assert_array_equal(pictures.shared(one, other), expected)


def test_copies_make_no_caption_common_and_none_is_its_own_sibling(tmp_path):
    captions = ["blue bird"] * 30 + ["blue bird sings"] + random_captions(60)
    pictures = stored(tmp_path, captions, [0] * 30 + list(range(1, 62)))
    assert (0, 30) in pairs_of(pictures)
    assert all(b >= 30 for _, b in pairs_of(pictures))


def test_no_captions(tmp_path):
    pictures = stored(tmp_path, ["", "!"])
    assert pairs_of(pictures) == set()
    assert pictures.shared(np.array([0]), np.array([1])).tolist() == [0]
    assert pairs_of(stored(tmp_path / "none", [])) == set()


def test_what_all_pictures_say_fills_no_bucket(tmp_path, monkeypatch):
    """Nor do the pictures of a crowded group; and what few share is found all the same."""
    monkeypatch.setattr(rare_words, "_KEYS", 500)
    captions = ["a photo of something"] * 2_000
    for place in range(0, 2_000, 100):
        captions[place] = captions[place + 50] = f"a photo of something rare{place}"
    groups = np.arange(2_000)
    groups[1_000:1_049] = 1_000  # between two of the rare ones
    pictures = stored(tmp_path, captions, groups, most=3)
    sizes = [path.stat().st_size // 24 for path in tmp_path.glob("keys-*")]
    assert max(sizes) < 4 * 500
    expected = {(place, place + 50) for place in range(0, 2_000, 100)}
    assert pairs_of(pictures) == expected
    owner = np.arange(2_000)
    assert (
        pairs_of(Naive.of(captions, owner, np.unique(groups, return_inverse=True)[1]), 3)
        == expected
    )
