"""Encode what the cache lacks of some shards, and open a split that it holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from curate.measures.decode import UnreadableImage, decode
from curate.pack.buckets import key_hashes
from curate.pack.sample import Sample, read_shard
from curate.run.manifest import ShardInfo, intact
from curate.run.progress import Bar
from curate.run.shared_cache import CONDITIONING, LATENTS, LISTINGS, remove_abandoned, touch
from finetune.cache.hold import hold
from finetune.cache.listing import Listing, listing_path, read_listing, write_listing
from finetune.cache.packs import ENTRIES, Packs, content_hash, hashes, write_pack
from finetune.cache.split import LATENT, EncodedSplit
from finetune.crop import Crop
from finetune.models.interface import LatentDiffusion

ENCODE_BATCH = 32  # captions at a time, or pictures of 128 px
CROP = "centre of the shorter side, bicubic"


def pictures_at_once(resolution: int) -> int:
    """Batch size of the VAE, whose memory grows with the pixels.

    >>> [pictures_at_once(resolution) for resolution in (64, 128, 256, 512, 1024)]
    [32, 32, 8, 2, 1]
    """
    return max(1, min(ENCODE_BATCH, ENCODE_BATCH * 128**2 // resolution**2))


def encode_shards(
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    *,
    progress: bool = True,
) -> None:
    """Encode those pictures and captions of ``shards`` that the cache does not hold.

    A picture's latent does not depend on the pictures that are encoded with it, because all batches have
    the same size: the last one is filled up. On a CPU a batch of another size changes it by 1e-6.

    Raises:
        UserError: a shard is not what the manifest says.
        Busy: the cache is being pruned.
        RuntimeError: a picture cannot be decoded, or its latent is not finite; names shard and key.
    """
    _hold(model, cache_dir)
    remove_abandoned(cache_dir)
    latents, conditioning = (Packs(folder, check=True) for folder in _folders(model, cache_dir))
    stale = _incomplete(shards, cache_dir, latents, conditioning)
    size = pictures_at_once(model.resolution)
    pictures = _Encoder(latents, lambda items: _encode_pictures(model, items), size)
    captions = _Encoder(conditioning, lambda items: _encode_captions(model, items), ENCODE_BATCH)
    total = sum(info.samples for info in stale)
    with Bar(total=total, desc="encode", unit="img", disable=not (progress and stale)) as bar:
        for info in stale:
            shard = intact(curate_dir, info)
            listing = Listing([], [], [])
            for sample in read_shard(shard):
                digest = content_hash(sample.image)
                if pictures.lacks(digest):
                    pictures.add(digest, _picture(model, shard, sample))
                for caption in sample.captions:
                    if captions.lacks(digest_of_text := content_hash(caption.encode())):
                        captions.add(digest_of_text, caption)
                listing.keys.append(sample.key)
                listing.pictures.append(digest)
                listing.captions.append(sample.captions)
                bar.update()
            write_listing(listing_path(cache_dir, info), listing)
        pictures.finish()
        captions.finish()


def load_split(
    model: LatentDiffusion, shards: Sequence[ShardInfo], cache_dir: Path
) -> EncodedSplit:
    """Open what :func:`encode_shards` wrote.

    Samples are in the order of their hashed keys, so that neither the size of shards nor how they are
    divided changes an order of training.

    Raises:
        RuntimeError: some of it was deleted meanwhile.
        Busy: the cache is being pruned.
    """
    _hold(model, cache_dir)
    touch(listing_path(cache_dir, info) for info in shards)
    listings = [read_listing(listing_path(cache_dir, info)) for info in shards]
    samples = [
        sample
        for listing in listings
        if listing
        for sample in zip(listing.keys, listing.pictures, listing.captions, strict=True)
    ]
    order = np.argsort(key_hashes(key for key, _, _ in samples), kind="stable")
    samples = [samples[index] for index in order]
    texts = (caption for _, _, captions in samples for caption in captions)
    wanted = [picture for _, picture, _ in samples], [content_hash(text.encode()) for text in texts]
    found = []
    for folder, digests in zip(_folders(model, cache_dir), wanted, strict=True):
        packs = Packs(folder, check=False)
        places = packs.find(hashes(digests))
        if None in listings or (places < 0).any():
            raise RuntimeError(f"{cache_dir} has lost files; the same command again replaces them")
        found.append(packs.rows(places))
    latents, conditioning = found
    return EncodedSplit(
        keys=[key for key, _, _ in samples],
        captions=[captions[0] for _, _, captions in samples],
        latents=latents,
        conditioning=conditioning,
        offsets=np.cumsum([0, *(len(captions) for _, _, captions in samples)]),
        empty=model.encode_captions([""]).to("cpu"),
    )


def remove_former(cache_dir: Path) -> None:
    """Delete a cache of versions that kept latents by shard, in ``<run>/finetune/cache``, and say so."""
    if cache_dir.is_dir():
        shutil.rmtree(cache_dir)
        Bar.write(f"{cache_dir} was deleted: latents are kept for all runs now")


def to_square(image: Image.Image, resolution: int) -> Image.Image:
    """The shorter side resized to ``resolution`` pixels (bicubic, antialiased), the centre cropped."""
    return ImageOps.fit(image, (resolution, resolution), method=Image.Resampling.BICUBIC)


def _folders(model: LatentDiffusion, cache_dir: Path) -> tuple[Path, Path]:
    """Where the latents and the conditioning of this model's encoders are."""
    made_by = f"{CROP} {model.resolution} {model.image_fingerprint()}", model.caption_fingerprint()
    names = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in made_by]
    return cache_dir / LATENTS / names[0], cache_dir / CONDITIONING / names[1]


def _hold(model: LatentDiffusion, cache_dir: Path) -> None:
    """Nothing that this model uses is pruned from now on."""
    for folder in (*_folders(model, cache_dir), cache_dir / LISTINGS):
        hold(model, folder)


def _incomplete(
    shards: Sequence[ShardInfo], cache_dir: Path, latents: Packs, conditioning: Packs
) -> list[ShardInfo]:
    """The shards that were never listed, or of which a picture or a caption is missing."""
    listings = [read_listing(listing_path(cache_dir, info)) for info in shards]
    known = [listing or Listing([], [], []) for listing in listings]
    texts = [[text for captions in each.captions for text in captions] for each in known]
    pictures = latents.hold([each.pictures for each in known])
    captions = conditioning.hold([[content_hash(t.encode()) for t in each] for each in texts])
    return [
        info
        for info, listing, *complete in zip(shards, listings, pictures, captions, strict=True)
        if listing is None or not all(complete)
    ]


class _Encoder:
    """Encodes each new item once, in batches of one size, and writes the results in packs."""

    def __init__(
        self, packs: Packs, encode: Callable[[list[Any]], dict[str, Tensor]], size: int
    ) -> None:
        self._packs, self._encode, self._size = packs, encode, size
        self._added: set[bytes] = set()
        self._queue: dict[bytes, Any] = {}
        self._done: list[tuple[list[bytes], dict[str, Tensor]]] = []

    def lacks(self, digest: bytes) -> bool:
        """Whether what has this content hash still has to be added."""
        return digest not in self._added and self._packs.find(hashes([digest]))[0] < 0

    def add(self, digest: bytes, item: Any) -> None:
        """Encode ``item``, now or with those that follow."""
        self._added.add(digest)
        self._queue[digest] = item
        if len(self._queue) == self._size:
            self._encode_queue()

    def finish(self) -> None:
        """Encode and write what is left."""
        if self._queue:
            self._encode_queue()
        self._write()

    def _encode_queue(self) -> None:
        digests, items = list(self._queue), list(self._queue.values())
        tensors = self._encode(items + items[-1:] * (self._size - len(items)))
        self._done.append(
            (digests, {name: tensor[: len(items)] for name, tensor in tensors.items()})
        )
        self._queue.clear()
        if sum(len(digests) for digests, _ in self._done) + self._size > ENTRIES:
            self._write()

    def _write(self) -> None:
        if not self._done:
            return
        digests = [digest for digests, _ in self._done for digest in digests]
        names = self._done[0][1]
        tensors = {
            name: torch.cat([each[name] for _, each in self._done]).contiguous() for name in names
        }
        write_pack(self._packs.folder, digests, tensors)
        self._done.clear()


@dataclass(frozen=True, slots=True)
class _Picture:
    """Pixels [side, side, 3] uint8, where they are from, and what they are of the picture."""

    shard: Path
    key: str
    pixels: np.ndarray
    crop: Crop


def _picture(model: LatentDiffusion, shard: Path, sample: Sample) -> _Picture:
    try:
        image = decode(sample.image)
    except UnreadableImage as error:
        raise RuntimeError(
            f"{shard}: the picture of {sample.key} is unreadable: {error}"
        ) from error
    pixels = np.asarray(to_square(image, model.resolution))
    return _Picture(shard, sample.key, pixels, Crop.square(image.size, model.resolution))


def _encode_pictures(model: LatentDiffusion, pictures: Sequence[_Picture]) -> dict[str, Tensor]:
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    latents = model.encode_images(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).cpu()
    finite = latents.flatten(1).isfinite().all(1)
    if not finite.all():
        wrong = pictures[int((~finite).nonzero()[0])]
        raise RuntimeError(
            f"{wrong.shard}: the latent of {wrong.key} is not finite; is the VAE intact?"
        )
    return {LATENT: latents, **model.picture_entries([picture.crop for picture in pictures])}


def _encode_captions(model: LatentDiffusion, captions: Iterable[str]) -> dict[str, Tensor]:
    return model.encode_captions(list(captions)).half().to("cpu").tensors
