"""Map a function in threads, in order and only a few items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Generator[_Result]:
    """As ``map``, computed by ``pool`` up to ``ahead`` items before they are asked for.

    ``Executor.map`` of Python before 3.14 takes all items at once. What ``function`` raises is raised
    when its item's turn comes; items that have not started by then are not computed.
    """
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
