"""The text of a caption that holds HTML, as YFCC100M's do: without tags, with the characters that entities stand for."""

from __future__ import annotations

import html
import re

# HTML 5 accepts "&copy" without a semicolon; in a caption "rock&copy" is just text. No entity's name and
# no character's number is longer than 32.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,31});")
# A tag begins with a letter, so "5 < 6" is text; one that is never closed is text, too.
_TAG = re.compile(r"<[/!?]?([A-Za-z][A-Za-z0-9]*)[^<>]*>")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_BLOCKS = ("br", "p", "div", "li", "tr", "td")  # a space stands for each


def text_of_html(caption: str) -> str:
    """``caption`` without tags and comments; the time grows with its length and no faster.

    >>> text_of_html('a <a href="x">link</a><br>5 &lt; 6 &amp; more')
    'a link 5 < 6 & more'
    """
    if "<" in caption:
        # Behind the last end of a comment none is complete: the pattern would look for it from each start.
        end = caption.rfind("-->") + len("-->") if "-->" in caption else 0
        caption = _COMMENT.sub("", caption[:end]) + caption[end:]
        caption = _TAG.sub(_space_for_a_block, caption)
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), caption)


def _space_for_a_block(tag: re.Match[str]) -> str:
    return " " if tag[1].lower() in _BLOCKS else ""
