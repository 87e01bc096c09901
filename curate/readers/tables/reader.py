"""Tables of URLs and captions, as many data sets are published, with a folder of the downloaded pictures.

Each row is one candidate. A URL in several rows gives several, which the rule on duplicates joins. A
column with a list of captions gives all of them to one candidate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from curate.measures.not_fetched import PLACE
from curate.readers.candidate import Candidate
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import unread_archives, version_of
from curate.readers.matching.claims import Row
from curate.readers.matching.paths import named_file
from curate.readers.source import Source
from curate.readers.tables import TableConfig, neighbours, parquet
from curate.readers.tables.batches import Batch
from curate.readers.tables.entries import batches, entries, find, key_files, paths_of
from curate.readers.tables.files import TableFile
from curate.readers.tables.images import Images, Matches, RemoteImages
from curate.readers.tables.keys import RowKeys
from curate.run.remote import is_remote
from curate.run.schema import UserError

_NO_IMAGE = "rows whose image is not in dataset.images_dir"
_NOT_FETCHED = "rows whose image could not be fetched"


def read(config: TableConfig) -> Source:
    """Stream the table's rows in order; malformed lines are noted, missing images counted.

    Raises:
        FileNotFoundError: ``dataset.path`` or ``dataset.images_dir`` is missing.
        UserError: ``dataset.images_dir`` is not set, a file is not what its name says, or no
            column is known to hold captions or URLs.
    """
    notes: list[str] = []
    tables = find(config, notes)
    images = _images(config, tables[0])
    notes += unread_archives(images.root)
    total = _total(config, tables)
    before = _digest(config, tables)
    if is_remote(config.images_dir) or not _names_all_files(config, tables, images.root):
        beside = neighbours.tables_beside(config, tables)
        images.prepare(
            f"{before}\n{_digest(config, beside)}",
            lambda with_captions: _rows(config, tables, images.root, with_captions=with_captions),
            lambda: neighbours.rows_beside(beside, lambda t: _rows(config, [t], images.root)),
            _first(config, tables),
        )
    file_notes = (*notes, *images.notes)

    def candidates() -> Iterator[Candidate]:
        if _digest(config, tables) != before:  # rows are matched by their number
            raise UserError(f"{config.path} has changed since the command started; type it again")
        with images.matches() as match:
            yield from _candidates(config, tables, images, match, CountedNotes(notes, file_notes))

    return Source(candidates, images.load, total, notes)


def _images(config: TableConfig, table: TableFile) -> Images:
    if config.images_dir is None:
        raise UserError(
            f"dataset.images_dir is not set: {config.path} lists pictures and does not hold them. Type "
            "dataset.images_dir=FOLDER with where they are; or, to have them fetched into that folder, also "
            "fetch.enabled=true fetch.contact=ADDRESS, with an e-mail address or web page of yours"
        )
    index = Path(config.index) if config.index else None
    if is_remote(config.images_dir):
        return RemoteImages(config.images_dir, index)
    root = Path(config.images_dir)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.images_dir={root} is not a folder; type dataset.images_dir=FOLDER, where FOLDER "
            "holds the pictures or shards, or fetch.enabled=true to have them fetched there"
        )
    return Images(root, index)


def _total(config: TableConfig, tables: list[TableFile]) -> int | None:
    """The number of rows, if parquet's metadata has it."""
    if tables[0].file_type != "parquet":
        return None
    rows = parquet.count(tables)
    return None if config.leave_out else rows


def _digest(config: TableConfig, tables: list[TableFile]) -> str:
    """A text that changes when what the rows say of their pictures may have changed."""
    how = [config.columns, config.quotes, config.url_encoded, config.encoding]
    roles = [config.url_column, config.image_column, config.caption_columns]
    files = [(str(table.path), table.file_type, version_of(table.path)) for table in tables]
    return json.dumps([how, roles, files])


def _first(config: TableConfig, tables: list[TableFile]) -> int | None:
    """How many rows ``dataset.limit`` reaches, those that are left out among them; None where it is not set."""
    if config.limit is None or config.sample is not None or config.shard is not None:
        return None
    rows = enumerate(entries(config, tables, CountedNotes([])), start=1)
    used = (number for number, entry in rows if not entry.excluded)
    return max(islice(used, config.limit), default=None)


def _names_all_files(config: TableConfig, tables: list[TableFile], images_dir: Path) -> bool:
    """Whether every row names an existing file, so that there is nothing to match."""
    rows = entries(config, tables, CountedNotes([]))
    return all(named_file(images_dir, entry.paths(images_dir)) for entry in rows)


def _rows(
    config: TableConfig, tables: list[TableFile], images_dir: Path, *, with_captions: bool = True
) -> Iterator[Row]:
    """What all rows say of their pictures, also those that are left out: their pictures are theirs."""
    for entry in entries(config, tables, CountedNotes([])):
        yield entry.row(images_dir, with_captions=with_captions)


def _candidates(
    config: TableConfig,
    tables: list[TableFile],
    images: Images,
    match: Matches,
    notes: CountedNotes,
) -> Iterator[Candidate]:
    keys, files = RowKeys(), key_files(tables)
    start = 0
    for batch in batches(config, tables, notes):
        locations, found = match(start, len(batch), partial(paths_of, batch, images.root))
        start += len(batch)
        if any(batch.excluded):
            parts = _without_excluded(batch, locations, found, notes)
        else:
            parts = [(batch, locations, found)]
        for part in parts:
            yield from _of_batch(config, *part, files[batch.table], images, keys, notes)


def _of_batch(
    config: TableConfig,
    batch: Batch,
    locations: list[str],
    found: dict[int, str],
    file: str,
    images: Images,
    keys: RowKeys,
    notes: CountedNotes,
) -> Iterator[Candidate]:
    """The candidates of rows with the locations and notes of their pictures."""
    roles, captions = batch.roles, batch.captions()
    urls, names = batch.texts(roles.url), batch.texts(roles.image)
    contents = [
        "\0".join((url, name, *texts))
        for url, name, texts in zip(urls, names, captions, strict=True)
    ]
    named = ({"url": urls} if roles.url else {}) | ({"file_name": names} if roles.image else {})
    versions, place = images.versions(locations), f"{batch.table.path.name}:"
    rows = zip(
        keys.keys(batch.identifiers(), contents, file, batch.numbers),
        captions,
        locations,
        versions,
        batch.said(named),
        strict=True,
    )
    for i, (key, texts, location, version, columns) in enumerate(rows):
        if note := found.get(i):
            notes.add(note, f"{place}{batch.numbers[i]}")
        if not version or location.startswith(PLACE):
            absent = _NOT_FETCHED if version else _NO_IMAGE
            notes.add(absent, f"{place}{batch.numbers[i]}")
        yield Candidate(key, texts, config.name, location, version, columns)


def _without_excluded(
    batch: Batch, locations: list[str], found: dict[int, str], notes: CountedNotes
) -> Iterator[tuple[Batch, list[str], dict[int, str]]]:
    """Runs of rows between those that ``dataset.leave_out`` excludes, which are noted."""
    bounds = [i for i, why in enumerate(batch.excluded) if why]
    start = 0
    for end in [*bounds, len(batch)]:
        if end > start:
            of_run = {i - start: note for i, note in found.items() if start <= i < end}
            yield batch.rows(start, end), locations[start:end], of_run
        if end < len(batch):
            place = f"{batch.table.path.name}:{batch.numbers[end]}"
            notes.add(f"rows left out, {batch.excluded[end]}", place)
        start = end + 1
