"""Whether the Hugging Face hub can be reached, found out in seconds instead of a minute of retries."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimedOut
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

_PATIENCE_S = 2.0
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@cache
def is_reachable() -> bool:
    """Whether the hub's host takes a connection; not asked where ``HF_HUB_OFFLINE`` forbids it.

    Behind a proxy nobody can tell without a request, so it counts as reachable.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in _PROXIES):
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    pool = ThreadPoolExecutor(1)  # looking up a name has no time limit of its own
    try:
        pool.submit(_connect, address.hostname or "", port).result(2 * _PATIENCE_S)
    except (OSError, TimedOut):
        return False
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return True


def cached_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """One of a repository's files from the local cache; None if none of ``names`` is there."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _connect(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=_PATIENCE_S):
        pass
