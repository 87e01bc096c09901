"""Captions with HTML: what is a tag, what is text, and how long a hostile one takes."""

import time

import pytest

from curate.readers.tables.html_text import text_of_html


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ('a <a href="http://x/?a=1&b=2">link</a><br/>b', "a link b"),
        ("one<!-- two <b> -->three <!-- four", "onethree <!-- four"),
        ("5 < 6 and <b", "5 < 6 and <b"),
        ("I <3 you > me", "I <3 you > me"),
        ("Tom &amp; J&eacute;r&ocirc;me &#43; &#x41; &copy 1", "Tom & Jérôme + A &copy 1"),
        ("a &#" + "1" * 5000 + "; b", "a &#" + "1" * 5000 + "; b"),
    ],
)
def test_tags_go_and_text_stays(caption, text):
    assert text_of_html(caption) == text


@pytest.mark.parametrize("unit", ["<", "<!--", "-->", "<a ", "</", "<!", "&a", "&#1"])
def test_the_time_grows_with_the_length_only(unit):
    """A million characters of ``<!--`` once took five minutes."""
    caption = "-->" + unit * (1_000_000 // len(unit))
    start = time.process_time()
    text_of_html(caption)
    assert time.process_time() - start < 5
