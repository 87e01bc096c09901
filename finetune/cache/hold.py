"""Keep folders of the cache from being pruned for as long as a model uses them."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from pathlib import Path

from curate.run.locks import locked

_held: dict[int, dict[Path, ExitStack]] = {}
"""The locked folders by the identity of a model, which need not be hashable."""


def hold(model: object, folder: Path) -> None:
    """Share the lock of ``folder``, which is made, until ``model`` is gone or the process ends.

    Raises:
        Busy: the folder is being pruned.
    """
    if id(model) not in _held:
        _held[id(model)] = {}
        weakref.finalize(model, _release, id(model))
    folders = _held[id(model)]
    if folder in folders:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stack = ExitStack()
    stack.enter_context(locked(folder, "run.root", shared=True))
    folders[folder] = stack


def _release(model: int) -> None:
    for stack in _held.pop(model, {}).values():
        stack.close()
