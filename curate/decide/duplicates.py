"""Copies of a picture: which belong together, and which of them is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.decide import neighbours
from curate.decide.config import SplitConfig
from curate.decide.evidence import COPIES, GROUPS
from curate.decide.group_names import group_names
from curate.decide.looks import COLUMNS, Looks, numbers
from curate.filters.duplicates import DuplicatesConfig
from curate.measures.phash import PIXELS_DIGITS

Pass = Callable[[pd.DataFrame], np.ndarray]
"""Pictures, the preferred first => for each the position of the one kept for it: its own or an earlier one."""


def groups(
    annotations: pd.DataFrame,
    split: SplitConfig,
    filters: DuplicatesConfig,
    embedded: Embeddings | None = None,
) -> pd.Series:
    """The group of copies of each row; the split divides none, and joins them with their ``siblings``.

    Two pictures share a group if their pixels are equal, their perceptual hashes near (also with one
    of them mirrored) and their thumbnails alike by ``evidence.GROUPS``, their embeddings near (if the
    filters say how near), or if the source says so in a column ``group``. Chains are followed to their
    end: a chain that is cut would have its ends on two sides. The name is the hash of the smallest ``group`` among its members, so that another data set
    with the same photo puts it on the same side; without one it is the smallest of their first 16
    digits of ``pixels_sha256``. So adding data moves only groups that it joins. Images that were not
    decoded have the group "".

    Args:
        annotations: rows with ``key, pixels_sha256, phash, phash_mirrored, thumbnail`` and, where the
            source has it, ``group``.
        split: how near hashes are on different sides.
        filters: how near dropped copies are; groups reach at least as far.
        embedded: embeddings of the same rows; read where ``filters.cosine`` is given.
    """
    looked_at = ["key", "pixels_sha256", *COLUMNS, "group", "caption_index"]
    pictures = annotations[annotations.columns.intersection(looked_at)].drop_duplicates("key")
    is_single = len(pictures) == len(annotations)
    pictures = pictures[pictures["pixels_sha256"] != ""]
    labels = neighbours.components(len(pictures), _links(pictures, split, filters, embedded))
    pixels = pictures["pixels_sha256"].str.slice(0, PIXELS_DIGITS)
    names = group_names(labels, pixels, numbers(pixels), pictures.get("group"))
    if is_single:  # a million keys need not be looked up
        return names.reindex(annotations.index, fill_value="")
    by_key = names.set_axis(pictures["key"].to_numpy())
    return by_key.reindex(annotations["key"], fill_value="").set_axis(annotations.index)


def _links(
    pictures: pd.DataFrame,
    split: SplitConfig,
    filters: DuplicatesConfig,
    embedded: Embeddings | None,
) -> neighbours.Pairs:
    """Pairs of positions that belong to one group."""
    positions = np.arange(len(pictures))
    yield _first_of_equal(numbers(pictures["pixels_sha256"].str.slice(0, PIXELS_DIGITS))), positions
    if "group" in pictures:
        yield _first_of_equal(pictures["group"].where(pictures["group"] != "")), positions
    given = (split.hamming_distance, filters.hamming_distance)
    if distances := [distance for distance in given if distance is not None]:
        yield from _near_or_mirrored(pictures, max(distances))
    if filters.cosine is not None:
        with _vectors(pictures, embedded) as vectors:
            yield from neighbours.cosine_pairs(vectors, filters.cosine)


def _first_of_equal(values: pd.Series | np.ndarray) -> np.ndarray:
    """For each position the first with an equal value; its own if the value is missing."""
    codes, _ = pd.factorize(values)
    _, first = np.unique(codes[codes >= 0], return_index=True)
    positions = np.arange(len(values))
    own = positions[codes >= 0][first]
    return np.where(codes >= 0, own[codes] if len(own) else positions, positions)


def _near_or_mirrored(pictures: pd.DataFrame, distance: int) -> neighbours.Pairs:
    """Pairs of pictures of which one looks like the other, as it is or mirrored."""
    both = Looks.both_ways(pictures)
    _, first, node = np.unique(both.names(), return_index=True, return_inverse=True)
    own = np.tile(np.arange(len(pictures)), 2)
    picture = own[first]
    yield picture[node], own
    for one, other in both.take(first).near_pairs(distance, GROUPS):
        yield picture[one], picture[other]


def copies(
    pairs: pd.DataFrame, config: DuplicatesConfig, embedded: Embeddings | None = None
) -> pd.Series:
    """For each pair the key of the picture that is kept instead; "" if its own is kept.

    Of several copies the one with the most similar caption is kept, then the larger, then the first by
    key. Exact, near and semantic copies are searched one after another, each among what the previous
    search kept; mirror images are not copies here, as captions may speak of left and right. A search
    drops a picture only if a picture that it keeps is near it: of a chain a-b-c whose ends are not
    near, a and c are kept. If a later search drops that picture as well, the one named for both is
    near the second and not necessarily near the first. A near copy has a near hash and a thumbnail that
    is alike by ``evidence.COPIES``.

    Args:
        pairs: rows with ``key, clip_similarity, width, height, pixels_sha256, phash, thumbnail``.
        config: which pictures count as the same.
        embedded: embeddings of all annotations; read where ``config.cosine`` is given.
    """
    alike = config.hamming_distance is not None or config.cosine is not None
    # If only equal pixels count, only pictures that share them can be dropped, and those are few.
    pictures = _by_preference(
        pairs if alike else pairs[pairs["pixels_sha256"].duplicated(keep=False)]
    )
    stays, left = np.arange(len(pictures)), np.arange(len(pictures))
    for keepers in _passes(config, embedded):
        found = keepers(pictures.iloc[left])
        stays[left] = left[found]
        left = left[found == np.arange(len(left))]
    while not np.array_equal(last := stays[stays], stays):
        stays = last
    keys = pictures["key"].to_numpy()
    goes = keys[stays] != keys
    keeper = pd.Series(keys[stays][goes], index=keys[goes], dtype="str")
    return pairs["key"].map(keeper).astype("str").fillna("")


def _by_preference(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row for each picture, the preferred first."""
    best = pairs.groupby("key")["clip_similarity"].max()
    pictures = pairs.drop_duplicates("key").assign(
        clip_similarity=lambda table: table["key"].map(best),
        area=lambda table: table["width"].astype("int64") * table["height"],
    )
    return pictures.sort_values(["clip_similarity", "area", "key"], ascending=[False, False, True])


def _passes(config: DuplicatesConfig, embedded: Embeddings | None) -> Iterator[Pass]:
    if config.exact:
        yield lambda pictures: _first_of_equal(
            numbers(pictures["pixels_sha256"].str.slice(0, PIXELS_DIGITS))
        )
    if config.hamming_distance is not None:
        distance = config.hamming_distance
        yield lambda pictures: _near_looks(pictures, distance)
    if config.cosine is not None:
        cosine = config.cosine
        yield lambda pictures: _near_embeddings(pictures, cosine, embedded)


def _near_looks(pictures: pd.DataFrame, distance: int) -> np.ndarray:
    looks = Looks.of(pictures)
    first = _first_of_equal(looks.names())
    own = np.unique(first)
    stays = np.arange(len(pictures))
    stays[own] = own[looks.take(own).stays(distance, COPIES)]
    return stays[first]


def _near_embeddings(
    pictures: pd.DataFrame, cosine: float, embedded: Embeddings | None
) -> np.ndarray:
    with _vectors(pictures, embedded) as vectors:
        return neighbours.stays_by_cosine(vectors, cosine)


def _vectors(
    pictures: pd.DataFrame, embedded: Embeddings | None
) -> AbstractContextManager[np.ndarray]:
    """The embeddings (N, D) of N pictures; an image's embedding is in its first row."""
    if embedded is None:
        raise ValueError("semantic duplicates need the embeddings")
    rows = pictures.index.to_numpy() - pictures["caption_index"].to_numpy()
    return embedded.images_on_disk(rows)
