"""Which of the names that are there a written name means, whatever its Unicode form, letter case and separators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from curate.readers.names import folded, normalised


def meet(written: Iterable[str], there: Iterable[str]) -> dict[str, str]:
    """The name that each written name means, without those that mean none.

    A name means itself. Otherwise it means the only one that is spelled alike, if no other written name
    is; first with its letter case, then without.

    >>> meet(["Cat.JPG", "dog.jpg"], ["cat.jpg", "dog.jpg", "Dog.jpg"])
    {'dog.jpg': 'dog.jpg', 'Cat.JPG': 'cat.jpg'}
    """
    written, there = list(dict.fromkeys(written)), dict.fromkeys(there)
    found = {name: name for name in written if name in there}
    for spelling in (normalised, folded):
        if len(found) == len(written):
            break
        asked, present = _grouped(written, spelling), _grouped(there, spelling)
        for alike, names in asked.items():
            same = present.get(alike, [])
            if len(names) == len(same) == 1:
                found.setdefault(names[0], same[0])
    return found


def _grouped(names: Iterable[str], spelling: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[spelling(name)].append(name)
    return groups
