"""Pictures of different groups that share words which few groups have, found without all words in memory.

Pictures are looked up by keys: hashes of each of a picture's rarest words, of two of them, and of all its words.
Keys lie on the disk in buckets, so that those of one bucket are sorted in memory; equal keys are in the same one. A key
that all pictures have, as of the words of "a photo of", would fill its bucket: of a bucket that grows long, what more
groups have than are asked for is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.decide import neighbours
from curate.decide.caption_words import CaptionWords, ranges
from curate.decide.number_files import NumberFile
from curate.run.database import blocks, registered
from curate.run.hashing import GOLDEN, mix

if TYPE_CHECKING:
    import duckdb

RAREST = 6  # words of a picture that are looked up, alone and in pairs
OF_GROUP = 4  # pictures of a group that are paired with others for one of these

_KEYS = 1 << 22  # that are sorted at a time: about 400 MB
_PAIRS = 1 << 15  # of pictures whose words are read at a time
_KEYS_OF_PICTURE = RAREST * (RAREST + 1) // 2 + 1
_RECORD = np.dtype([("key", "<u8"), ("group", "<i8"), ("picture", "<i8")])


class Pictures:
    """N pictures, numbered in ascending order of the hash of their key, and their words, in files.

    Attributes:
        images: int64, the row of each picture's first caption.
        groups: int64, the first picture of each picture's group.
        count: how many groups there are.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        having: str,
        folder: Path,
        few: Callable[[int], int],
    ) -> None:
        """Write the files.

        Args:
            connection: with the views ``images, words`` and the table ``copy_groups``. The table
                ``places(image, name, picture)`` is created.
            having: the table of ``caption_words.create_having`` for these words and groups.
            folder: for the files; it is there.
            few: how many groups, of so many, may have what pictures share.
        """
        self.images = NumberFile(folder / "images", np.int64)
        self.groups = NumberFile(folder / "groups", np.int64)
        self._starts = NumberFile(folder / "starts", np.int64)
        self._words = NumberFile(folder / "words", np.uint64)
        self._having = NumberFile(folder / "having", np.int64)
        self._number(connection)
        count = len(self.images)
        (self.count,) = connection.sql("SELECT count(DISTINCT name) FROM places").fetchall()[0]
        self._few = few(self.count)
        self._keys = _Buckets(folder, -(-count * _KEYS_OF_PICTURE // _KEYS), self._few)
        self._starts.append(np.zeros(1))
        for whole in _whole_pictures(_words(connection, having)):
            self._add(*whole)
        self._keys.write()
        self._end_words_at(count)

    def _number(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Fill ``images`` and ``groups``, and number the pictures in the table ``places``."""
        connection.sql("CREATE TABLE places (image BIGINT, name UBIGINT, picture BIGINT)")
        pictures = """SELECT image, name FROM copy_groups JOIN images USING (image)
            ORDER BY number, image"""
        for block in blocks(connection, pictures):
            number = np.arange(len(self.images), len(self.images) + len(block))
            self.images.append(block["image"].to_numpy())
            with registered(connection, "block", block.append_column("picture", pa.array(number))):
                connection.sql("INSERT INTO places SELECT image, name, picture FROM block")
        leaders = """SELECT leader FROM places
            JOIN (SELECT name, min(picture) AS leader FROM places GROUP BY name) USING (name)
            ORDER BY picture"""
        for block in blocks(connection, leaders):
            self.groups.append(block["leader"].to_numpy())

    def _add(self, first: int, owner: np.ndarray, words: np.ndarray, having: np.ndarray) -> None:
        """Store the words of pictures from number ``first`` on, and their keys."""
        self._end_words_at(first)
        counts = np.bincount(owner)
        ends = np.cumsum(counts)
        self._starts.append(len(self._words) + ends)
        self._words.append(words)
        self._having.append(having)
        groups = self.groups.read(first, first + len(counts))
        keys, place = _keys(np.append(0, ends), words, having)
        records = np.empty(len(keys), _RECORD)
        records["key"], records["picture"], records["group"] = keys, first + place, groups[place]
        self._keys.add(records)

    def _end_words_at(self, picture: int) -> None:
        """Pictures up to number ``picture`` that were not added have no words."""
        self._starts.append(np.full(picture + 1 - len(self._starts), len(self._words)))

    def words(self, pictures: np.ndarray) -> CaptionWords:
        """The words of some pictures (n,)."""
        owner, at = ranges(self._starts.take(pictures), self._starts.take(pictures + 1))
        found = self._words.take(at), self._having.take(at)
        return CaptionWords.of(owner, *found, len(pictures), self.count)

    def shared(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """As ``CaptionWords.shared``: (M,)."""
        found = np.empty(len(one))
        for start in range(0, len(one), _PAIRS):
            rows = slice(start, start + _PAIRS)
            pictures = np.unique(np.concatenate([one[rows], other[rows]]))
            places = (np.searchsorted(pictures, of[rows]) for of in (one, other))
            found[rows] = self.words(pictures).shared(*places)
        return found

    def sharing(self) -> neighbours.Pairs:
        """Pairs of pictures of two groups that share what few groups have, in blocks.

        What they share is one of their ``RAREST`` words, two of them, or all words. The work grows with
        N; a pair may come several times. Of a group that has many such pictures, the first ``OF_GROUP``
        are paired.
        """
        for bucket in self._keys.files:
            records, few = _first_of_groups(bucket.read(), self._few)
            yield from _pairs(records[few], self._few)


class _Buckets:
    """Records in files, those of equal keys in the same one.

    As many wait in memory as are sorted there later on: else each file would be opened for a few at a time.

    Attributes:
        files: one for each bucket. Those that grew long lack keys of more than ``most`` groups, and pictures
            behind the first ``OF_GROUP`` of a group with a key.
    """

    def __init__(self, folder: Path, count: int, most: int) -> None:
        self.files = [NumberFile(folder / f"keys-{number:05d}", _RECORD) for number in range(count)]
        self._most = most
        self._common = [np.empty(0, np.uint64)] * count  # keys that were dropped, ascending
        self._longest = [2 * _KEYS] * count  # records of a file that is not looked through yet
        self._waiting: list[np.ndarray] = []
        self._size = 0  # of what waits, in records

    def add(self, records: np.ndarray) -> None:
        """Take some records (n,) of ``_RECORD``."""
        self._waiting.append(records)
        self._size += len(records)
        if self._size >= _KEYS:
            self.write()

    def write(self) -> None:
        """Append what waits to the files."""
        if not self._size:
            return
        records = np.concatenate(self._waiting)
        self._waiting, self._size = [], 0
        bucket = (records["key"] % np.uint64(len(self.files))).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(len(self.files) + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            self._append(number, records[order[bounds[number] : bounds[number + 1]]])

    def _append(self, number: int, records: np.ndarray) -> None:
        if len(common := self._common[number]):
            at = np.minimum(np.searchsorted(common, records["key"]), len(common) - 1)
            records = records[common[at] != records["key"]]
        file = self.files[number]
        file.append(records)
        if len(file) > self._longest[number]:
            self._shorten(number)

    def _shorten(self, number: int) -> None:
        """Write a file again without what can give no pair, whatever is added."""
        records, few = _first_of_groups(self.files[number].read(), self._most)
        self._common[number] = np.union1d(self._common[number], records["key"][~few])
        self.files[number] = NumberFile(self.files[number].path, _RECORD)
        self.files[number].append(records[few])
        self._longest[number] = max(2 * _KEYS, 2 * len(self.files[number]))


def _words(connection: duckdb.DuckDBPyConnection, having: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Blocks of picture, word and how many groups have it; by picture, the rarest word first."""
    words = f"""SELECT picture, word, groups FROM words JOIN places USING (image)
        JOIN {having} USING (word) ORDER BY picture, groups, word"""
    for block in blocks(connection, words):
        yield tuple(block[name].to_numpy() for name in ("picture", "word", "groups"))


def _whole_pictures(
    words: Iterator[tuple[np.ndarray, ...]],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """The same cut so that no picture is in two blocks, each word once.

    Yields:
        The first picture's number, each word's picture counted from it, the word, the groups that have it.
    """
    left: tuple[np.ndarray, ...] | None = None
    for found in words:
        block = found if left is None else tuple(map(np.concatenate, zip(left, found, strict=True)))
        last = int(np.searchsorted(block[0], block[0][-1]))
        if last:
            yield _once(*(column[:last] for column in block))
        left = tuple(column[last:] for column in block)
    if left is not None:
        yield _once(*left)


def _once(
    pictures: np.ndarray, words: np.ndarray, having: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    is_new = np.append(True, (pictures[1:] != pictures[:-1]) | (words[1:] != words[:-1]))
    first = int(pictures[0])
    return first, pictures[is_new] - first, words[is_new], having[is_new]


def _keys(
    starts: np.ndarray, words: np.ndarray, having: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of what n pictures may share with other groups, and the pictures, 0 ... n - 1.

    Args:
        starts: (n + 1,) where each picture's words begin.
        words: their hashes, a picture's rarest first.
        having: how many groups have the word.
    """
    mixed, counts = mix(words), np.diff(starts)
    has = [np.flatnonzero(counts > place) for place in range(RAREST)]
    rarest = [mixed[starts[rows] + place] for place, rows in enumerate(has)]
    others = [having[starts[rows] + place] > 1 for place, rows in enumerate(has)]
    found = list(zip(rarest, has, others, strict=True))
    with np.errstate(over="ignore"):
        for high in range(RAREST):
            for low in range(high):
                at = np.searchsorted(has[low], has[high])
                # The sum is the same in whichever order two equally rare words stand.
                key = mix((rarest[low][at] + rarest[high]) * np.uint64(GOLDEN))
                found.append((key, has[high], others[low][at]))  # the rarer one
        sums = np.append(np.uint64(0), np.cumsum(mixed, dtype=np.uint64))
        whole = sums[starts[has[0] + 1]] - sums[starts[has[0]]]
    found.append((mix(whole ^ np.uint64(GOLDEN)), has[0], others[0]))
    # What a word of one group is in, no other group has.
    keys = np.concatenate([keys[shared] for keys, _, shared in found])
    return keys, np.concatenate([rows[shared] for _, rows, shared in found])


def _first_of_groups(records: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``OF_GROUP`` pictures of each group with a key, sorted by key, and which are of at most ``most`` groups."""
    order = np.lexsort((records["picture"], records["group"], records["key"]))
    records = records[order]
    keys, groups = records["key"], records["group"]
    is_key = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    is_first = is_key | np.append(True, groups[1:] != groups[:-1])[: len(keys)]
    begins = np.flatnonzero(is_first)  # of a group with a key
    nth = np.arange(len(keys)) - begins[np.cumsum(is_first) - 1]
    number = np.cumsum(is_key) - 1
    few = np.bincount(number, is_first) <= most
    taken = nth < OF_GROUP
    return records[taken], few[number[taken]]


def _pairs(records: np.ndarray, most: int) -> neighbours.Pairs:
    """The pairs of pictures of two groups with one key, of which ``_first_of_groups`` gave at most ``most`` groups."""
    keys, groups, pictures = (records[name] for name in ("key", "group", "picture"))
    for step in range(1, most * OF_GROUP):
        left = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(left):
            break
        left = left[groups[left] != groups[left + step]]
        yield pictures[left], pictures[left + step]
