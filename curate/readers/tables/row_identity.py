"""A short text by which a row of a table is known again, in the notes of the picture that was fetched for it."""

from __future__ import annotations

from collections.abc import Sequence

from curate.readers.matching.claims import mark


def row_identity(file: str, number: int, url: str, captions: Sequence[str]) -> str:
    """16 hex digits that change with a row's place, with what it asks for and with what it says of that.

    Of rows with one address side by side each is known again, and where further rows were put before them none
    is taken for another. Two rows of N share an identity with a chance of N^2 / 2^65: 4 in a million for 12
    million rows.

    Args:
        file: the table's file, relative to the folder of the table.
        number: of the row in that file.
        url: from which its picture is fetched.
        captions: of the row.

    >>> row_identity("cc12m.tsv", 7, "http://example.org/a.jpg", ("a cat",))
    'de6ed0446f7d38a1'
    """
    said = "\0".join((file, str(number), url, *captions))
    return f"{mark(said) & (2**64 - 1):016x}"
