"""Which columns of a published table hold the URL, the captions and the image's file name.

The known names are those of CC3M, CC12M, YFCC100M, LAION-400M, LAION-5B and its derivatives, Re-LAION,
DataComp, COYO and the parquet files of img2dataset, from the data sets' own pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

from curate.readers.columns import RESERVED, captions_in, is_missing, plain
from curate.readers.tables import TableConfig
from curate.readers.tables.html_text import text_of_html
from curate.run.schema import UserError

URLS = ("url", "URL", "image_url", "image_urls", "downloadurl", "download_url")
CAPTIONS = ("text", "TEXT", "caption", "captions", "alt", "top_caption", "title")
IMAGES = ("file_name", "filename", "image", "path")
IDS = ("uid", "id", "photo_id", "key")
FILE_STEMS = (*IDS, "sha256")  # an image file may be named by the value of any of these

_RENAMED = {
    **{"WIDTH": "source_width", "HEIGHT": "source_height"},
    **{"original_width": "source_width", "original_height": "source_height"},
    **{"LICENSE": "licence", "license": "licence", "LANGUAGE": "source_language"},
    **{"NSFW": "source_nsfw", "AESTHETIC_SCORE": "aesthetic", "SAMPLE_ID": "sample_id"},
}
_RESERVED = RESERVED | {"url"}
_STRAY = ("", "Unnamed: 0", "__index_level_0__")  # row numbers that pandas wrote
WHOLE = ("source_width", "source_height")
"""Columns of the ledger whose numbers are whole ones, whatever type they have."""


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The table's columns by their role.

    Attributes:
        url: the column of URLs, None if there is none.
        captions: each holds a caption, or a list of captions.
        image: the column of image file names, None if there is none.
        rest: the ledger's name for each other column. A published similarity becomes
            ``source_similarity``; scores of different models keep different names. LAION swapped
            WIDTH and HEIGHT in its releases: of ``source_width`` and ``source_height`` only the
            smaller and the larger can be trusted. Rules use the measured size of the picture.
        images, urls: all columns that may name the image's file, or hold a URL: the one above first,
            and, unless it is configured, the others with a known name.
    """

    url: str | None
    captions: tuple[str, ...]
    image: str | None
    rest: dict[str, str]
    images: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


def column_roles(names: Sequence[str], config: TableConfig) -> ColumnRoles:
    """The roles of the columns ``names``: as configured, or by their known names.

    Raises:
        UserError: a configured column is missing, there is no caption column, or no column by which
            an image could be found.
    """
    for key in ("url_column", "image_column"):
        _check_named(key, [getattr(config, key)], names)
    _check_named("caption_columns", config.caption_columns or (), names)
    _check_named("leave_out", config.leave_out, names)
    urls = (config.url_column,) if config.url_column else _all(URLS, names)
    images = (config.image_column,) if config.image_column else _all(IMAGES, names)
    url, image = next(iter(urls), None), next(iter(images), None)
    captions = tuple(config.caption_columns or filter(None, [_first(CAPTIONS, names)]))
    if not captions or not (url or image or _first(FILE_STEMS, names)):
        raise UserError(
            f"the table has the columns {', '.join(names)}; a caption ({', '.join(CAPTIONS)}) and a "
            f"URL ({', '.join(URLS)}) or a file name ({', '.join(IMAGES)}) are needed. Type "
            "dataset.caption_columns=[NAME] and dataset.url_column=NAME or dataset.image_column=NAME, "
            "or dataset.columns=[...] if the first line is not a header"
        )
    rest: dict[str, str] = {}
    for name in names:
        if name not in (url, image, *captions, *_STRAY):
            rest[name] = _ledger_name(name, rest.values())
    return ColumnRoles(url, captions, image, rest, images, urls)


def _check_named(key: str, wanted: Iterable[str | None], names: Sequence[str]) -> None:
    for name in wanted:
        if name is not None and name not in names:
            raise UserError(
                f"dataset.{key} names {name!r}, which is no column of the table; it has: {', '.join(names)}"
            )


def _all(known: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in known if name in names)


def _first(known: Sequence[str], names: Sequence[str]) -> str | None:
    return next(iter(_all(known, names)), None)


def _ledger_name(name: str, taken: Iterable[str]) -> str:
    """A name for the ledger that is neither one of its own columns nor already ``taken``."""
    wanted = _RENAMED.get(name, f"source_{name}" if name in _RESERVED else name)
    while wanted in taken or wanted in ("file_name", *_RESERVED):
        wanted = f"source_{wanted}"
    return wanted


def captions_of(record: dict[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The captions of a row, each once; empty ones only if there is no other."""
    found: dict[str, None] = {}
    for column in columns:
        found |= dict.fromkeys(captions_in(record.get(column)))
    return tuple(filter(None, found)) or tuple(found)


def columns_of(record: dict[str, Any], rest: dict[str, str]) -> dict[str, Any]:
    """The other columns: nested values as JSON, whole sizes as int; missing values are left out."""
    columns = {}
    for name, ledger_name in rest.items():
        value = record.get(name)
        if is_missing(value):
            continue
        value = plain(value)
        is_whole = ledger_name in WHOLE and isinstance(value, float) and value.is_integer()
        columns[ledger_name] = int(value) if is_whole else value
    return columns


def text_of(value: Any) -> str:
    """A name or URL as text, "" for a missing one; the first of a list; "7" for 7.0."""
    if isinstance(value, list):
        value = next(iter(value), None)
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def url_decoded(columns: dict[str, list[Any]], roles: ColumnRoles) -> dict[str, list[Any]]:
    """Columns of URL-encoded fields, as in YFCC100M, decoded; HTML tags are removed from captions."""
    return {name: [_decoded(value, name, roles) for value in columns[name]] for name in columns}


def _decoded(value: Any, column: str, roles: ColumnRoles) -> Any:
    if not isinstance(value, str):
        return value
    text = (unquote if column == roles.url else unquote_plus)(value)
    return text_of_html(text) if column in roles.captions else text
