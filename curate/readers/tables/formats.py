"""What the columns of published tables mean: whose is the address, the caption, the picture's name.

Names as released, from the data sets' own pages: CC3M, CC12M, YFCC100M, LAION-400M, LAION-5B and its
descendants, Re-LAION, DataComp, COYO, img2dataset's sidecars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, unquote_plus

from curate.readers.columns import RESERVED, captions_in, is_missing, plain
from curate.readers.config import TableConfig
from curate.run.cli import UserError

URLS = ("url", "URL", "image_url", "image_urls", "downloadurl", "download_url")
CAPTIONS = ("text", "TEXT", "caption", "captions", "alt", "top_caption", "title")
IMAGES = ("file_name", "filename", "image", "path")
IDS = ("uid", "id", "photo_id", "key")
FILE_STEMS = (*IDS, "sha256")  # an image may be called like any of these

_RENAMED = {
    **{"WIDTH": "source_width", "HEIGHT": "source_height"},
    **{"original_width": "source_width", "original_height": "source_height"},
    **{"LICENSE": "licence", "license": "licence", "LANGUAGE": "source_language"},
    **{"NSFW": "source_nsfw", "AESTHETIC_SCORE": "aesthetic", "SAMPLE_ID": "sample_id"},
}
_RESERVED = RESERVED | {"url"}
_STRAY = ("", "Unnamed: 0", "__index_level_0__")  # row numbers that pandas wrote
_WHOLE = ("source_width", "source_height")
# HTML 5 takes "&copy" for a sign without its semicolon; people who write "rock&copy" mean none.
_BARE_AMPERSAND = re.compile(r"&(?!#?\w+;)")
_BLOCKS = ("br", "p", "div", "li", "tr", "td")


@dataclass(frozen=True, slots=True)
class Meaning:
    """Which column is what.

    Attributes:
        url: the address; None where the table has none.
        captions: each holds a caption, or a list of them.
        image: the image's file; None where the table does not name it.
        rest: the other columns by the names they get in the ledger. A release's own similarity is
            ``source_similarity``; scores of different models keep different names. LAION's releases
            swap WIDTH and HEIGHT, so that of ``source_width`` and ``source_height`` only the smaller
            and the larger say something; rules look at the size of the picture itself.
    """

    url: str | None
    captions: tuple[str, ...]
    image: str | None
    rest: dict[str, str]


def meaning(names: Sequence[str], config: TableConfig) -> Meaning:
    """What the columns called ``names`` mean.

    Raises:
        UserError: a column that the configuration names is missing, or there is no caption column, or
            nothing that could tell an image.
    """
    for key in ("url_column", "image_column"):
        _check_named(key, [getattr(config, key)], names)
    _check_named("caption_columns", config.caption_columns or (), names)
    _check_named("leave_out", config.leave_out, names)
    url = config.url_column or _first(URLS, names)
    image = config.image_column or _first(IMAGES, names)
    captions = tuple(config.caption_columns or filter(None, [_first(CAPTIONS, names)]))
    if not captions or not (url or image or _first(FILE_STEMS, names)):
        raise UserError(
            f"the table has the columns {', '.join(names)}; a caption ({', '.join(CAPTIONS)}) and an "
            f"address ({', '.join(URLS)}) or a file name ({', '.join(IMAGES)}) are needed. Type "
            "dataset.caption_columns=[NAME] and dataset.url_column=NAME or dataset.image_column=NAME, "
            "or dataset.columns=[...] if the first line is no line of names"
        )
    rest: dict[str, str] = {}
    for name in names:
        if name not in (url, image, *captions, *_STRAY):
            rest[name] = _ledger_name(name, rest.values())
    return Meaning(url, captions, image, rest)


def _check_named(key: str, wanted: Iterable[str | None], names: Sequence[str]) -> None:
    for name in wanted:
        if name is not None and name not in names:
            raise UserError(
                f"dataset.{key} names {name!r}, which the table has not; it has: {', '.join(names)}"
            )


def _first(known: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in known if name in names), None)


def _ledger_name(name: str, taken: Iterable[str]) -> str:
    """``name`` as the ledger has it: one of its own columns is never hidden, nor one of the table."""
    wanted = _RENAMED.get(name, f"source_{name}" if name in _RESERVED else name)
    while wanted in taken or wanted in ("file_name", *_RESERVED):
        wanted = f"source_{wanted}"
    return wanted


def captions_of(record: dict[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The captions of a row, each once; a missing one is none, and an empty one counts if it is alone."""
    found: dict[str, None] = {}
    for column in columns:
        found |= dict.fromkeys(captions_in(record.get(column)))
    return tuple(filter(None, found)) or tuple(found)


def columns_of(record: dict[str, Any], rest: dict[str, str]) -> dict[str, Any]:
    """The further columns, flat: lists as JSON text, whole sizes as int; a missing value is left out."""
    columns = {}
    for name, ours in rest.items():
        value = record.get(name)
        if is_missing(value):
            continue
        value = plain(value)
        is_whole = ours in _WHOLE and isinstance(value, float) and value.is_integer()
        columns[ours] = int(value) if is_whole else value
    return columns


def text_of(value: Any) -> str:
    """A name or an address as text, "" for a missing one; of a list the first, 7.0 is "7"."""
    if isinstance(value, list):
        value = next(iter(value), None)
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def unquoted(record: dict[str, Any], known: Meaning) -> dict[str, Any]:
    """A row whose fields are written as in an address, YFCC100M's way; captions lose their HTML."""
    plain = {
        name: (unquote if name == known.url else unquote_plus)(value)
        if isinstance(value, str)
        else value
        for name, value in record.items()
    }
    return plain | {
        name: _without_tags(value)
        for name, value in plain.items()
        if name in known.captions and isinstance(value, str)
    }


class _Text(HTMLParser):
    """Collects what stands between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in _BLOCKS:
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, ())


def _without_tags(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    parser = _Text()
    parser.feed(_BARE_AMPERSAND.sub("&amp;", text))
    parser.close()
    return "".join(parser.pieces)
