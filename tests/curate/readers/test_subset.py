"""Parts of a data set: stable, disjoint, complete."""

import json

import pytest

from curate.readers.candidate import Candidate
from curate.readers.config import DatasetConfig
from curate.readers.scrub import COLUMN, scrub
from curate.readers.source import Source
from curate.readers.subset import take_subset
from curate.run.schema import UserError

KEYS = [f"k{number:05d}" for number in range(5_000)]


def chosen(keys=KEYS, **changes):
    source = Source.of([Candidate(key, ("x",), "s", key, "1") for key in keys], str.encode)
    config = DatasetConfig(name="s", reader="folder", **changes)
    return [candidate.key for candidate in take_subset(source, config).candidates()]


def test_shards_are_a_partition():
    parts = [chosen(shard=f"{number}/3") for number in range(3)]
    assert sorted(key for part in parts for key in part) == KEYS
    assert min(map(len, parts)) > 1_500


def test_a_sample_has_its_share_and_does_not_depend_on_the_rest():
    sample = chosen(sample=0.1)
    assert 400 < len(sample) < 600
    assert set(chosen(KEYS[::2], sample=0.1)) == set(sample) & set(KEYS[::2])
    assert set(sample) < set(chosen(sample=0.2))


def test_the_limit_comes_last():
    assert chosen(sample=0.1, limit=7) == chosen(sample=0.1)[:7]
    assert 100 < len(set(chosen(sample=0.1)) & set(chosen(shard="0/3"))) < 230


@pytest.mark.parametrize(
    "change", [{"shard": "3/3"}, {"shard": "a"}, {"sample": 0.0}, {"limit": 0}]
)
def test_out_of_range(change):
    with pytest.raises(UserError, match=f"dataset.{next(iter(change))}"):
        DatasetConfig(name="s", reader="folder", **change)


def test_scrubbed_captions_keep_what_was_read():
    candidates = [
        Candidate("a", ("call +49 30 1234567 now", "plain"), "s", "a", "1", {"url": "x"}),
        Candidate("b", ("plain",), "s", "b", "1"),
    ]
    changed, same = scrub(Source.of(candidates, str.encode)).candidates()
    assert changed.captions == ("call now", "plain")
    assert json.loads(changed.columns[COLUMN]) == list(candidates[0].captions)
    assert changed.columns["url"] == "x"
    assert same == candidates[1]
