"""Copies of pictures by comparing each with each, in memory: the oracle of ``curate.decide.duplicates``."""

from hashlib import blake2b

import numpy as np
import pandas as pd

from curate.decide import near
from curate.decide.evidence import COPIES, GROUPS, alike, is_plain
from curate.decide.looks import Looks


def groups(rows, split, filters, vectors=None) -> pd.Series:
    """The name of each row's group, "" where its image was not decoded; ``vectors`` (N, D) by row, zeros for none."""
    pictures = rows.reset_index(drop=True).drop_duplicates("key")
    pictures = pictures[pictures["pixels_sha256"] != ""]
    count = len(pictures)
    pixels = pictures["pixels_sha256"].str.slice(0, 16).tolist()
    given = pictures["group"].tolist() if "group" in pictures else [None] * count
    given = [name if isinstance(name, str) and name else None for name in given]
    same = np.array(pixels, object)[:, None] == np.array(pixels, object)
    told = np.array([name or object() for name in given], object)
    same |= told[:, None] == told
    distances = [d for d in (split.hamming_distance, filters.hamming_distance) if d is not None]
    if distances:
        both = Looks.both_ways(pictures)
        owner = np.tile(np.arange(count), 2)
        order = np.argsort(both.names(), kind="stable")
        link = _looks_alike(_taken(both, order), max(distances))
        for one, other in zip(*np.nonzero(link), strict=True):
            same[owner[order[one]], owner[order[other]]] = True
    if filters.cosine is not None and vectors is not None:
        same |= _near(vectors[pictures.index], filters.cosine)
    labels = _components(same)
    names = {}
    for label in set(labels):
        members = [place for place in range(count) if labels[place] == label]
        told_of = [name for place in members if (name := given[place])]
        least = min(pixels[place] for place in members)
        names[label] = (
            blake2b(min(told_of).encode(), digest_size=8).hexdigest() if told_of else least
        )
    by_key = dict(zip(pictures["key"], (names[label] for label in labels), strict=True))
    return rows["key"].map(lambda key: by_key.get(key, "")).astype("str")


def _looks_alike(looks: Looks, distance: int) -> np.ndarray:
    """Which looks in ascending order of their names are equal, in one crowd or near: (N, N)."""
    names = looks.names()
    first = np.searchsorted(names, names)  # of equal ones
    different = np.unique(first)
    leaders = _leaders(_taken(looks, different), GROUPS)
    own = np.flatnonzero(
        (leaders == np.arange(len(leaders))) & ~is_plain(looks.thumbnails[different])
    )
    link = names[:, None] == names
    link[different[leaders], different] = True
    rows = different[own]
    link[np.ix_(rows, rows)] |= _near_looks(_taken(looks, rows), distance, GROUPS)
    return link


def copies(rows, config, vectors=None) -> pd.Series:
    """The key of the picture that is kept instead of each row's; "" if its own is kept."""
    best = rows.groupby("key")["clip_similarity"].max()
    pictures = rows.reset_index(drop=True).drop_duplicates("key")
    pictures = pictures.assign(
        similarity=pictures["key"].map(best), area=pictures["width"] * pictures["height"]
    )
    pictures = pictures.sort_values(["similarity", "area", "key"], ascending=[False, False, True])
    stays = np.arange(len(pictures))
    left = np.arange(len(pictures))
    pixels = pictures["pixels_sha256"].str.slice(0, 16).to_numpy(object)
    if config.exact:
        left = _pass(stays, left, greedily(pixels[:, None] == pixels))
    if config.hamming_distance is not None:
        found = _stays(Looks.of(pictures.iloc[left]), config.hamming_distance)
        left = _pass(stays, left, found)
    if config.cosine is not None and vectors is not None:
        near_ones = _near(vectors[pictures.index[left]], config.cosine)
        _pass(stays, left, greedily(near_ones))
    for _ in range(3):
        stays = stays[stays]
    keys = pictures["key"].to_numpy(object)
    keeper = dict(zip(keys, keys[stays], strict=True))
    return rows["key"].map(lambda key: "" if keeper[key] == key else keeper[key]).astype("str")


def _pass(stays, left, found):
    stays[left] = left[found]
    return left[found == np.arange(len(left))]


def _stays(looks: Looks, distance: int) -> np.ndarray:
    """For each look, the preferred first, the one that is kept for it."""
    names = looks.names().tolist()
    first = np.array([names.index(name) for name in names], np.int64)
    different = np.unique(first)
    leaders = _leaders(_taken(looks, different), COPIES)
    own = np.flatnonzero(
        (leaders == np.arange(len(leaders))) & ~is_plain(looks.thumbnails[different])
    )
    kept = np.arange(len(different))
    kept[own] = own[greedily(_near_looks(_taken(looks, different[own]), distance, COPIES))]
    return different[kept[leaders]][np.searchsorted(different, first)]


def _leaders(looks: Looks, limits) -> np.ndarray:
    """For each look the one that leads it; its own where it is in no crowd."""
    leaders = np.arange(len(looks.hashes))
    searched = np.flatnonzero(~is_plain(looks.thumbnails))
    for value in set(looks.hashes[searched].tolist()):
        crowd = [place for place in searched.tolist() if looks.hashes[place] == value]
        heads = []
        for place in crowd if len(crowd) > near.CROWD else []:
            seen = looks.thumbnails[[place]]
            like = (head for head in heads if alike(looks.thumbnails[[head]], seen, limits)[0])
            leaders[place] = next(like, place)
            if leaders[place] == place and len(heads) < near.MOST_LEADERS:
                heads.append(place)
    return leaders


def _near_looks(looks: Looks, distance: int, limits) -> np.ndarray:
    differing = np.bitwise_count(looks.hashes[:, None] ^ looks.hashes)
    one, other = np.nonzero(differing <= distance)
    found = np.zeros(differing.shape, bool)
    found[one, other] = alike(looks.thumbnails[one], looks.thumbnails[other], limits)
    return found


def _near(vectors: np.ndarray, cosine: float) -> np.ndarray:
    exact = vectors.astype(np.float64)
    return np.round(exact @ exact.T, 6) >= cosine


def greedily(alike: np.ndarray) -> np.ndarray:
    """For each the first that stays and is near it, one by one, from a matrix (N, N)."""
    stays: list[int] = []
    for number in range(len(alike)):
        taken = (n for n in range(number) if stays[n] == n and alike[n, number])
        stays.append(next(taken, number))
    return np.array(stays, np.int64)


def _components(same: np.ndarray) -> list[int]:
    labels = [-1] * len(same)
    for start in range(len(same)):
        stack = [start] if labels[start] < 0 else []
        while stack:
            place = stack.pop()
            labels[place] = start
            stack += [n for n in np.flatnonzero(same[place] | same[:, place]) if labels[n] < 0]
    return labels


def _taken(looks: Looks, positions: np.ndarray) -> Looks:
    return Looks(looks.hashes[positions], looks.thumbnails[positions])
