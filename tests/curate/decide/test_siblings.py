"""Planted siblings are joined; like captions alone, like pictures alone, and templates are not."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from curate.decide import families, rare_words, siblings
from curate.run.database import blocks
from tests.curate.decide import naive_siblings
from tests.curate.decide.drawn_pictures import copies_of, drawn, stored, unit
from tests.curate.decide.narrow_tables import database, groups_table, narrowed

THINGS = 60
SIZE = 24


def things(seed=0, count=THINGS):
    """Embeddings of unlike things."""
    return unit(np.random.default_rng(seed).normal(size=(count, SIZE)))


def near(vectors, seed=1, by=0.3):
    """Others at a cosine of about 0.96."""
    noise = np.random.default_rng(seed).normal(size=vectors.shape) / np.sqrt(SIZE)
    return unit(vectors + by * noise)


def pairs(captions, key="k"):
    rows = [
        {"key": f"{key}{n:04d}", "caption": caption, "caption_index": 0}
        | {"pixels_sha256": f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}"}
        for n, caption in enumerate(captions)
    ]
    return pd.DataFrame(rows)


def alone(table):
    """Each picture's group of copies: its own."""
    return table["pixels_sha256"].rename("")


@dataclass
class Found:
    """As ``siblings.Siblings``, with the groups by row."""

    groups: pd.Series
    level: float | None
    loosened: int


def find(folder, table, vectors, copies=None, parts=1, memory=2_000_000_000, threads=2, **options):
    copies = alone(table) if copies is None else copies
    embedded = stored(folder, vectors, parts)
    groups = groups_table(table, copies)
    with database(folder, memory, threads, **narrowed(table), copy_groups=groups) as connection:
        found = siblings.find(connection, embedded, folder, **options)
        assert {name for (name,) in connection.sql("SHOW TABLES").fetchall()} == {
            "pairs", "images", "words", "copy_groups", "sibling_groups"
        }  # fmt: skip
        names = dict(connection.sql("SELECT image, name FROM sibling_groups").fetchall())
    assert set(names) == set(groups["image"].to_pylist())
    assert not list(folder.glob("siblings-*"))
    images = np.arange(len(table)) - table["caption_index"].to_numpy()
    by_row = [f"{names[image]:016x}" if image in names else "" for image in images]
    return Found(pd.Series(by_row), found.level, found.loosened)


def named(count=THINGS):
    return [f"thing{n} of set{n % 7}" for n in range(count)]


@pytest.fixture
def planted(tmp_path):
    """Sixty things, a sibling of each, and of each thing a like picture and a like caption."""
    own = things()
    captions = [
        *named(),
        *(f"{caption} in dark blue" for caption in named()),
        *(f"other{n}" for n in range(THINGS)),  # a like picture, an unlike caption
        *(f"{caption} by night" for caption in named()),  # a like caption, an unlike picture
    ]
    vectors = np.concatenate([own, near(own), near(own, 2), things(9)])
    return pairs(captions), vectors


def test_siblings_are_joined_and_nothing_else(tmp_path, planted):
    found = find(tmp_path, *planted)
    groups = found.groups.to_numpy().reshape(4, THINGS)
    assert (groups[0] == groups[1]).all()
    assert found.groups.nunique() == 3 * THINGS
    assert found.loosened == 0
    assert found.level is not None
    assert 0.3 < found.level < 0.9


def test_the_name_is_the_least_of_the_members_pixels(tmp_path, planted):
    table, vectors = planted
    found = find(tmp_path, table, vectors)
    for place in range(THINGS):
        both = table["pixels_sha256"].iloc[[place, THINGS + place]]
        assert found.groups[place] == min(both)


def test_groups_of_copies_are_joined_whole(tmp_path, planted):
    table, vectors = planted
    copies = alone(table)
    copies[2 * THINGS] = copies[0]  # what looks like the first and has another caption
    found = find(tmp_path, table, vectors, copies).groups
    assert found[0] == found[THINGS] == found[2 * THINGS]


def test_neither_order_nor_parts_decide(tmp_path, planted):
    table, vectors = planted
    expected = find(tmp_path, table, vectors).groups.set_axis(table["key"])
    order = np.random.default_rng(3).permutation(len(table))
    turned = table.iloc[order].reset_index(drop=True)
    found = find(tmp_path, turned, vectors[order], parts=7)
    assert found.groups.set_axis(turned["key"])[expected.index].tolist() == expected.tolist()


def test_a_template_joins_nothing(tmp_path):
    """400 near pictures under one caption, among things with captions of their own."""
    crowd = near(np.repeat(things(5, 1), 400, axis=0), 6)
    table = pairs(["a photo of a dog"] * 400 + named(600))
    vectors = np.concatenate([crowd, things(7, 600)])
    assert find(tmp_path, table, vectors).groups.nunique() == 1000


def test_a_long_chain_is_loosened(tmp_path):
    """300 pictures, each a little different from the last in picture and words, and 300 others."""
    angles = np.cumsum(np.random.default_rng(4).uniform(0.02, 0.03, 300))
    chain = np.zeros((300, SIZE), np.float32)
    chain[:, 0], chain[:, 1] = np.cos(angles), np.sin(angles)
    captions = [" ".join(f"w{n + k}" for k in range(8)) for n in range(300)]
    table = pairs(captions + named(1700))
    found = find(tmp_path, table, np.concatenate([chain, things(7, 1700)]))
    sizes = found.groups[:300].value_counts()
    assert sizes.max() <= families.LARGEST
    assert sizes.max() >= 2
    assert found.loosened == 300


def test_two_of_a_family_are_enough_to_join_it(tmp_path):
    """Six tones of each: with the two nearest of each, all six are one group."""
    own = np.repeat(things(count=100), 6, axis=0)
    tones = [
        "",
        " light tone",
        " medium light tone",
        " medium tone",
        " medium dark tone",
        " dark tone",
    ]
    captions = [f"thing{n}{tone}" for n in range(100) for tone in tones]
    found = find(tmp_path, pairs(captions), near(own))
    assert found.groups.nunique() <= 105


def test_what_was_not_decoded_or_embedded_has_no_siblings(tmp_path, planted):
    table, vectors = planted
    copies = alone(table)
    copies[0] = ""
    listed = [None if n in (0, THINGS + 1) else row for n, row in enumerate(vectors)]
    found = find(tmp_path, table, listed, copies).groups
    assert found[0] == ""
    assert found[1] != found[THINGS + 1]
    assert found[2] == found[THINGS + 2]


def test_several_captions_of_a_picture(tmp_path, planted):
    table, vectors = planted
    second = table.iloc[: 2 * THINGS].assign(caption_index=1, caption="one of many")
    both = pd.concat([table, second]).sort_values(["key", "caption_index"])
    rows = both.index.to_numpy()
    listed = [
        vectors[n] if not k else None for n, k in zip(rows, both["caption_index"], strict=True)
    ]
    both = both.reset_index(drop=True)
    found = find(tmp_path, both, listed).groups
    assert (found.groupby(both["key"]).nunique() == 1).all()
    by_key = found.groupby(both["key"]).first().to_numpy()
    assert (by_key[:THINGS] == by_key[THINGS : 2 * THINGS]).all()
    assert found.nunique() == 3 * THINGS


def test_too_few_pictures_to_compare(tmp_path):
    found = find(tmp_path, pairs(["one thing"]), things(count=1))
    assert (found.level, found.groups.nunique()) == (None, 1)
    nothing = find(tmp_path, pairs(["one thing"]), things(count=1), pd.Series([""]))
    assert (nothing.level, nothing.groups.tolist()) == (None, [""])


def test_the_level_is_that_of_pictures_with_unlike_captions(tmp_path):
    """One pair in fifty is of siblings here; they must not raise the level to their own."""
    own = near(np.repeat(things(count=30), 3, axis=0))
    captions = [f"thing{n} {tone}" for n in range(30) for tone in ("light", "medium", "dark")]
    cosines = own @ own.T
    unlike = cosines[np.arange(90)[:, None] // 3 != np.arange(90) // 3]
    found = find(tmp_path, pairs(captions), own)
    assert found.level is not None
    assert np.quantile(unlike, 0.9) < found.level <= unlike.max() + 1e-5


def test_pictures_without_an_embedding_do_not_lower_the_level(tmp_path):
    table = pairs(named(700))
    listed = [*things(count=100), *[None] * 600]
    found = find(tmp_path, table, listed)
    assert found.level is not None
    assert found.level > 0.3


@pytest.mark.parametrize("seed", range(4))
def test_as_the_oracle(tmp_path, seed, monkeypatch):
    """Ties, copies, missing values, several captions, Chinese; every other draw with a chain to be loosened."""
    table, vectors = drawn(seed, chain=150 * (seed % 2))
    copies = copies_of(table)
    expected = naive_siblings.find(table, copies, stored(tmp_path, vectors, 3))
    assert expected.groups.nunique() < copies.nunique() - 50
    assert bool(expected.loosened) == bool(seed % 2)
    if seed >= 2:
        monkeypatch.setattr(rare_words, "_KEYS", 300)  # so in many buckets
        monkeypatch.setattr(families, "_BLOCK", 7)
        monkeypatch.setattr(rare_words, "_PAIRS", 11)
    found = find(tmp_path, table, vectors, copies, 3, 300_000_000, 1 + seed // 2)
    pd.testing.assert_series_equal(found.groups, expected.groups, check_names=False)
    assert (found.level, found.loosened) == (expected.level, expected.loosened)


def test_blocks_of_words_and_links_decide_nothing(tmp_path, monkeypatch):
    table, vectors = drawn(1, chain=150)
    copies = copies_of(table)
    expected = find(tmp_path, table, vectors, copies)

    def slices(connection, query):
        for block in blocks(connection, query):
            yield from (block.slice(start, 3) for start in range(0, len(block), 3))

    monkeypatch.setattr(siblings, "blocks", slices)
    monkeypatch.setattr(rare_words, "blocks", slices)
    found = find(tmp_path, table, vectors, copies)
    assert found.groups.tolist() == expected.groups.tolist()
    assert found.level == expected.level
    assert found.loosened == expected.loosened > 0


def test_without_joining_the_level_alone_is_measured(tmp_path, planted):
    joined = find(tmp_path, *planted)
    apart = find(tmp_path, *planted, join=False)
    assert apart.level == joined.level
    assert apart.groups.tolist() == alone(planted[0]).tolist()
