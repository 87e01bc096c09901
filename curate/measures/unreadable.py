"""`UnreadableImage`: the error for a picture that cannot be fetched or decoded, with its reason."""

from __future__ import annotations

MISSING_FILE = "missing file"
CANNOT_BE_READ = "cannot be read"


class UnreadableImage(Exception):
    """These bytes are no picture, or there are none; ``reason`` is short and the same for all of its kind."""

    def __init__(self, reason: str) -> None:
        """Keep the reason for the ledger."""
        super().__init__(reason)
        self.reason = reason
