"""Encode pictures and captions in batches of one size, and write what comes of it in packs.

Pictures are decoded, and packs are written, in threads beside the encoders, which on a GPU would wait for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curate.measures.decode import UnreadableImage, decode
from curate.pack.sample import Sample
from finetune.cache.folders import held, latents_folder
from finetune.cache.framing import View
from finetune.cache.packs import ENTRIES, Packs, hashes, write_pack
from finetune.cache.pictures import DEVIATION, LATENT
from finetune.crop import Crop
from finetune.models.interface import LatentDiffusion

ENCODE_BATCH = 32  # captions at a time, or pictures of 128 px
MOST_WAITING = 4 * ENTRIES  # latents of all folders that are encoded and not written yet


def pictures_at_once(resolution: float) -> int:
    """Batch size of the VAE, whose memory grows with the pixels.

    >>> [pictures_at_once(resolution) for resolution in (64, 128, 256, 512, 1024)]
    [32, 32, 8, 2, 1]
    """
    return max(1, min(ENCODE_BATCH, int(ENCODE_BATCH * 128**2 // resolution**2)))


class Encoder:
    """Encodes each new item once, in batches of one size, and writes the results in packs."""

    def __init__(
        self,
        packs: Packs,
        encode: Callable[[list[Any]], dict[str, Tensor]],
        size: int,
        pool: Executor,
    ) -> None:
        """An encoder.

        Args:
            packs: of the folder that the results belong to.
            encode: items, ``size`` of them, to tensors of as many rows.
            size: items in a batch.
            pool: writes the packs, one at a time.
        """
        self.packs, self._encode, self._size, self._pool = packs, encode, size, pool
        self._claimed: set[bytes] = set()
        self._queue: dict[bytes, Any] = {}
        self._done: list[tuple[list[bytes], dict[str, Tensor]]] = []
        self._writing: Future[None] | None = None

    def claim(self, digest: bytes) -> bool:
        """Whether what has this content hash is lacking; whoever is the first to ask has to add it."""
        if digest in self._claimed or self.packs.find(hashes([digest]))[0] >= 0:
            return False
        self._claimed.add(digest)
        return True

    def add(self, digest: bytes, item: Any) -> None:
        """Encode ``item``, now or with those that follow."""
        self._queue[digest] = item
        if len(self._queue) == self._size:
            self._encode_queue()

    def finish(self) -> None:
        """Encode and write what is left."""
        if self._queue:
            self._encode_queue()
        self.write()
        self._await_writing()

    @property
    def waiting(self) -> int:
        """How many are encoded and not written yet."""
        return sum(len(digests) for digests, _ in self._done)

    def _encode_queue(self) -> None:
        digests, items = list(self._queue), list(self._queue.values())
        tensors = self._encode(items + items[-1:] * (self._size - len(items)))
        self._done.append(
            (digests, {name: tensor[: len(items)] for name, tensor in tensors.items()})
        )
        self._queue.clear()
        if self.waiting + self._size > ENTRIES:
            self.write()

    def write(self) -> None:
        """Begin to write what is encoded, once what was before it is written.

        Raises:
            OSError: that one could not be written.
        """
        if not self._done:
            return
        self._await_writing()
        self._writing = self._pool.submit(_write, self.packs.folder, self._done)
        self._done = []

    def _await_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()


def _write(folder: Path, done: list[tuple[list[bytes], dict[str, Tensor]]]) -> None:
    """Write batches of content hashes and their tensors as one pack."""
    digests = [digest for digests, _ in done for digest in digests]
    tensors = {
        name: torch.cat([each[name] for _, each in done]).contiguous() for name in done[0][1]
    }
    write_pack(folder, digests, tensors)


def caption_encoder(model: LatentDiffusion, packs: Packs, pool: Executor) -> Encoder:
    """An encoder of captions."""
    return Encoder(packs, lambda items: _encode_captions(model, items), ENCODE_BATCH, pool)


class PictureEncoders:
    """An `Encoder` for each view, which is a folder of the cache; a picture is decoded once for all."""

    def __init__(self, model: LatentDiffusion, cache_dir: Path, pool: Executor) -> None:
        self._model, self._cache_dir, self._pool = model, cache_dir, pool
        self._encoders: dict[View, Encoder] = {}

    def of(self, view: View) -> Encoder:
        """The one of a view."""
        if view not in self._encoders:
            folder = held(self._model, latents_folder(self._model, self._cache_dir, view))
            self._encoders[view] = Encoder(
                Packs(folder, check=True),
                lambda items: _encode_pictures(self._model, items),
                pictures_at_once(math.sqrt(math.prod(view.target))),
                self._pool,
            )
        return self._encoders[view]

    def claim(self, digest: bytes, views: Iterable[View]) -> list[View]:
        """Those views of a picture that are lacking, see `Encoder.claim`."""
        return [view for view in dict.fromkeys(views) if self.of(view).claim(digest)]

    def add(self, digest: bytes, pictures: Iterable[Cut]) -> None:
        """Encode views of a picture, now or with those that follow."""
        for picture in pictures:
            self.of(picture.view).add(digest, picture)
        while sum(each.waiting for each in self._encoders.values()) > MOST_WAITING:
            max(self._encoders.values(), key=lambda each: each.waiting).write()

    def finish(self) -> None:
        """Encode and write what is left."""
        for encoder in self._encoders.values():
            encoder.finish()


@dataclass(frozen=True, slots=True)
class Cut:
    """Pixels [height, width, 3] uint8, where they are from, and what they are of the picture."""

    shard: Path
    key: str
    pixels: np.ndarray
    crop: Crop
    view: View


def cut_out(shard: Path, sample: Sample, digest: bytes, views: Sequence[View]) -> list[Cut]:
    """Decode a sample's picture and cut ``views`` out of it.

    Raises:
        RuntimeError: it cannot be decoded; names shard and key.
    """
    if not views:
        return []
    try:
        image = decode(sample.image)
    except UnreadableImage as error:
        raise RuntimeError(
            f"{shard}: the picture of {sample.key} is unreadable: {error}"
        ) from error
    return [
        _cut(shard, sample.key, image, view.cropped(image.size, digest), view) for view in views
    ]


def _cut(shard: Path, key: str, image: Image.Image, crop: Crop, view: View) -> Cut:
    return Cut(shard, key, np.asarray(crop.cut(image)), crop, view)


def _encode_pictures(model: LatentDiffusion, pictures: Sequence[Cut]) -> dict[str, Tensor]:
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    images, view = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, pictures[0].view
    if view.posterior:
        found = dict(zip((LATENT, DEVIATION), model.posterior_of(images), strict=True))
    else:
        found = {LATENT: model.encode_images(images)}
    stored = {name: each.half() if view.half else each for name, each in found.items()}
    stored = {name: each.cpu() for name, each in stored.items()}
    for each in stored.values():
        finite = each.flatten(1).isfinite().all(1)
        if not finite.all():
            wrong = pictures[int((~finite).nonzero()[0])]
            cause = "is the VAE intact?"
            if view.half:
                cause += " Or it is too large for fp16: type cache.precision=fp32"
            raise RuntimeError(f"{wrong.shard}: the latent of {wrong.key} is not finite; {cause}")
    return {**stored, **model.picture_entries([picture.crop for picture in pictures])}


def _encode_captions(model: LatentDiffusion, captions: Iterable[str]) -> dict[str, Tensor]:
    return model.encode_captions(list(captions)).half().to("cpu").tensors
