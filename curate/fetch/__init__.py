"""Stage 0, only where it is asked for: fetch the pictures of a table's addresses into raw shards.

The stages of it: ``requests`` (rows of the table), ``scheduler`` (which address next, and when again),
``client`` (one address, safely and politely), ``journal`` (every answer at once on disk), ``shards`` (tars
in img2dataset's layout). A table that lies beside its shards is then read as any other.
"""
