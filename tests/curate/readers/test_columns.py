"""What counts as a caption in the fields of foreign records."""

import pytest

from curate.readers.columns import captions_in


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ("a cat", ("a cat",)),
        (["a cat", None, "a dog", "a cat"], ("a cat", "a dog")),
        (42, ("42",)),
        ("", ("",)),
        ("café".encode(), ("café",)),
        (None, ()),
        (float("nan"), ()),
        ([], ()),
        ({"en": "a cat"}, ()),
        ([{"raw": "a cat"}, ["a dog"], "a cow"], ("a cow",)),
        ("a \ud800 cat", ("a ? cat",)),
    ],
)
def test_captions_are_texts(value, captions):
    assert captions_in(value) == captions
