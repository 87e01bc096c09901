"""Captions for images without one, and a trigger word in front of all."""

import json

import pytest

from curate.readers.candidate import Candidate
from curate.readers.config import DatasetConfig
from curate.readers.scrub import COLUMN, scrub
from curate.readers.source import Source
from curate.readers.wording import word
from curate.run.schema import UserError


def worded(*captions: str, caption: str | None = None, trigger: str | None = None) -> Candidate:
    one = Candidate("a", captions, "s", "a", "1", {"url": "x"})
    return next(word(Source.of([one], str.encode), caption, trigger).candidates())


def test_an_image_without_a_caption_gets_the_one_given():
    assert worded(caption=" a photo of a cup ").captions == ("a photo of a cup",)
    assert worded("", " ", caption="a cup").captions == ("a cup",)
    assert worded("a dog", caption="a cup").captions == ("a dog",)
    assert worded("", "a dog", caption="a cup").captions == ("", "a dog")


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("a dog", "ohwx, a dog"),
        ("a photo of ohwx dog", "a photo of ohwx dog"),
        ("OHWX, a dog", "OHWX, a dog"),
        ("ohwxy, a dog", "ohwx, ohwxy, a dog"),
        ("", ""),
    ],
)
def test_a_trigger_is_put_where_it_is_missing(read, expected):
    assert worded(read, trigger="ohwx").captions == (expected,)


def test_a_trigger_alone_is_no_caption():
    assert worded(trigger="ohwx").captions == ()
    assert worded(caption="a cup", trigger="ohwx").captions == ("ohwx, a cup",)


def test_what_was_read_is_noted_where_it_changed():
    changed = worded("a dog", "ohwx cat", trigger="ohwx")
    assert json.loads(changed.columns[COLUMN]) == ["a dog", "ohwx cat"]
    assert changed.columns["url"] == "x"
    assert COLUMN not in worded("ohwx cat", trigger="ohwx").columns


def test_scrubbing_before_keeps_its_own_note():
    one = Candidate("a", ("call +49 30 1234567 now",), "s", "a", "1")
    source = word(scrub(Source.of([one], str.encode)), None, "ohwx")
    found = next(source.candidates())
    assert found.captions == ("ohwx, call now",)
    assert json.loads(found.columns[COLUMN]) == ["call +49 30 1234567 now"]


@pytest.mark.parametrize("name", ["caption", "trigger"])
def test_an_empty_text_is_refused(name):
    with pytest.raises(UserError, match=f"dataset.{name}"):
        DatasetConfig(name="s", reader="folder", **{name: " "})
