"""Keys for the rows of a table: from what a row is, not where it stands, and unique all the same."""

from __future__ import annotations

import hashlib

from curate.readers.candidate import key_of

_FILTER_BYTES = 2**26
_PROBES = 4
_ROOM = 60  # characters of an identifier that leave space for what tells a repetition


class Keys:
    """One pass's keys, in constant memory.

    A row's key is made of its identifier, or of the hash of its address, captions and file name, and so
    stays the same when rows come or go. Rows with all of that in common are told apart by file and row
    number from the second on. Whether a row repeats an earlier one is asked of a Bloom filter (Bloom
    1970): it never forgets one; where it errs, for one row in thirteen of the hundred millionth and
    hardly ever before the ten millionth, the key holds a row number without need.
    """

    def __init__(self) -> None:
        self._seen = bytearray(_FILTER_BYTES)

    def key(self, identifier: str, content: tuple[str, ...], file: str, row: int) -> str:
        """The key of a row; ``content`` counts where ``identifier`` is "".

        Args:
            identifier: the release's own name for the row.
            content: what the row says: address, file name, captions.
            file: name of the row's file within the table.
            row: number of the row in it.
        """
        name = identifier or "\0".join(content)
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        key = key_of(identifier) if identifier else digest[:10].hex()
        if self._is_new(digest):
            return key
        place = hashlib.blake2b(file.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        return f"{key[:_ROOM]}-{digest[:4].hex()}-{place}-{row}"

    def _is_new(self, digest: bytes) -> bool:
        new = False
        for start in range(0, 4 * _PROBES, 4):
            position = int.from_bytes(digest[start : start + 4], "big") % (8 * _FILTER_BYTES)
            byte, bit = position >> 3, 1 << (position & 7)
            if not self._seen[byte] & bit:
                self._seen[byte] |= bit
                new = True
        return new
