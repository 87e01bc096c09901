"""Shuffled captions: the similarities that wrong pairs have by this CLIP, and the cut they give.

They are the null distribution of a similarity: pairs that are known to be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.annotate.embeddings import Embeddings
from curate.annotate.pair_numbers import may_be_drawn
from curate.decide import draw
from curate.run.database import blocks, registered

if TYPE_CHECKING:
    import duckdb

SHUFFLES = 4
MAX_PAIRS = 10_000  # whose embeddings are in memory at once


@dataclass(frozen=True, slots=True)
class Null:
    """Similarities of images with captions of other images, ascending: the null distribution.

    It is empty if all captions are equal, or all images; then no cut can be calibrated.
    """

    similarities: np.ndarray

    def cut(self, false_keep_rate: float) -> float | None:
        """The lowest cut that no more than ``false_keep_rate`` of the shuffled pairs pass (>=)."""
        if not len(self.similarities):
            return None
        allowed = int(false_keep_rate * len(self.similarities) + 1e-9)
        if allowed >= len(self.similarities):
            return -1.0
        highest_refused = self.similarities[len(self.similarities) - allowed - 1]
        return float(np.nextafter(np.float32(highest_refused), np.float32(np.inf)))

    def false_keep_rate(self, cut: float) -> float | None:
        """The share of shuffled pairs that a cut lets pass."""
        if not len(self.similarities):
            return None
        below = np.searchsorted(self.similarities, np.float32(cut), side="left")
        return 1 - float(below) / len(self.similarities)

    def separation(self, own: np.ndarray, times: np.ndarray | None = None) -> float | None:
        """AUC: how often a pair of the data set is more similar than a shuffled one; ties count half.

        1: this CLIP always tells them apart; 0.5: it guesses.

        Args:
            own: similarities of the data set, (N,).
            times: how many pairs have each, (N,) int64; None for one.
        """
        if not len(self.similarities) or not len(own):
            return None
        below = np.searchsorted(self.similarities, own, side="left")
        up_to = np.searchsorted(self.similarities, own, side="right")
        times = np.ones(len(own), np.int64) if times is None else times
        # Whole numbers, whose sum has no rounding.
        return float(((below + up_to) @ times) / times.sum() / 2 / len(self.similarities))


def shuffled(connection: duckdb.DuckDBPyConnection, embedded: Embeddings, seed: int = 0) -> Null:
    """Give each image, or each of ``MAX_PAIRS`` drawn ones, captions of others at random.

    Pairs that may be true are left out: the same picture, or a caption that the image has itself. The
    order of the pairs and how they are cut into parts decide nothing, see ``draw``.

    Args:
        connection: with the views ``pairs`` and ``images``, see ``tables``.
        embedded: embeddings of the same rows; only pairs whose embeddings are sure to be kept are drawn.
        seed: the same pairs and seed give the same ones.
    """
    streams = range(seed * (SHUFFLES + 1), (seed + 1) * (SHUFFLES + 1))
    scored = "SELECT row, image, number, caption FROM pairs WHERE similarity IS NOT NULL"
    there = (
        block.filter(pa.array(may_be_drawn(block["number"].to_numpy(), embedded.drawn_bits)))
        for block in blocks(connection, scored)
    )
    chosen = draw.drawn_of(there, MAX_PAIRS, streams[0])
    if not len(chosen):
        return Null(np.zeros(0, np.float32))
    images = embedded.images(chosen["image"].to_numpy())
    texts = embedded.texts(chosen["row"].to_numpy())
    numbers = chosen["number"].to_numpy()
    partners = [draw.partners(numbers, stream) for stream in streams[1:]]
    may_be_true = _may_be_true(connection, chosen, partners)
    found = [
        _similarities(images, texts, partner)[~true]
        for partner, true in zip(partners, may_be_true, strict=True)
    ]
    return Null(np.sort(np.concatenate(found)).astype(np.float32))


def _may_be_true(
    connection: duckdb.DuckDBPyConnection, chosen: pa.Table, partners: Sequence[np.ndarray]
) -> np.ndarray:
    """Which of the shuffled pairs show one picture or are pairs of the data set: (shuffles, N) bool.

    Args:
        connection: with ``pairs``, also those that were not drawn, and ``images``.
        chosen: N rows with ``image, caption``.
        partners: for each shuffle the position of the row whose caption each is given, (N,).
    """
    count = len(chosen)
    at = np.concatenate([np.arange(count)] * len(partners))
    partner = np.concatenate(partners)
    shuffled_pairs = pa.table(
        {
            "place": np.arange(len(at)),
            "image": chosen["image"].to_numpy()[at],
            "partner": chosen["image"].to_numpy()[partner],
            "caption": chosen["caption"].take(pa.array(partner)),
        }
    )
    query = """
        WITH given AS (
            SELECT place, own.pixels AS pixels, given.caption AS caption,
                own.pixels = other.pixels AS same_picture
            FROM shuffled_pairs AS given
            JOIN images AS own USING (image)
            JOIN images AS other ON other.image = given.partner
        ), own AS (
            SELECT DISTINCT pixels, caption FROM pairs JOIN images USING (image)
            WHERE pixels IN (SELECT pixels FROM given) AND caption IN (SELECT caption FROM given)
        )
        SELECT place FROM given WHERE same_picture
        UNION
        SELECT place FROM given SEMI JOIN own USING (pixels, caption)
        ORDER BY place"""
    with registered(connection, "shuffled_pairs", shuffled_pairs):
        found = connection.sql(query).to_arrow_table()["place"].to_numpy()
    may_be_true = np.zeros(len(at), bool)
    may_be_true[found] = True
    return may_be_true.reshape(len(partners), count)


def _similarities(images: np.ndarray, texts: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The similarity of each image with the text of its partner, (N,), rounded to six digits as pairs are.

    In double precision, one block at a time: a copy of all would take twice the embeddings' memory.
    Each sum is its own, so that no block's size shows in the last digit.
    """
    blocks = np.array_split(np.arange(len(partner)), len(partner) // 1024 + 1)
    parts = [
        (images[rows].astype(np.float64) * texts[partner[rows]]).sum(axis=1) for rows in blocks
    ]
    return np.concatenate(parts).round(6)
