"""Encode what the cache lacks of some shards, and open a split that it holds."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curate.measures.decode import UnreadableImage, decode
from curate.pack.buckets import key_hashes
from curate.pack.sample import Sample, read_shard
from curate.run import tag_variants
from curate.run.manifest import ShardInfo, intact
from curate.run.progress import Bar
from curate.run.shared_cache import CONDITIONING, LATENTS, LISTINGS, remove_abandoned, touch
from finetune.cache.framing import Framing, View
from finetune.cache.hold import hold
from finetune.cache.listing import Listing, listing_path, read_listing, write_listing
from finetune.cache.packs import ENTRIES, Packs, content_hash, hashes, write_pack
from finetune.cache.pictures import DEVIATION, LATENT, Pictures
from finetune.cache.rows import Rows
from finetune.cache.split import EncodedSplit
from finetune.crop import Crop
from finetune.models.interface import LatentDiffusion
from finetune.tags import TagVariants, texts_of

ENCODE_BATCH = 32  # captions at a time, or pictures of 128 px
MOST_WAITING = 4 * ENTRIES  # latents of all folders that are encoded and not written yet


def pictures_at_once(resolution: float) -> int:
    """Batch size of the VAE, whose memory grows with the pixels.

    >>> [pictures_at_once(resolution) for resolution in (64, 128, 256, 512, 1024)]
    [32, 32, 8, 2, 1]
    """
    return max(1, min(ENCODE_BATCH, int(ENCODE_BATCH * 128**2 // resolution**2)))


def encode_shards(
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing | None = None,
    *,
    progress: bool = True,
    tags: TagVariants | None = None,
) -> None:
    """Encode those pictures and captions of ``shards`` that the cache does not hold.

    A picture's latent does not depend on the pictures that are encoded with it, because all batches have
    the same size: the last one is filled up. On a CPU a batch of another size changes it by 1e-6.

    Args:
        model: whose encoders are used.
        curate_dir: that ``shards`` are in.
        shards: of any splits.
        cache_dir: see ``curate.run.shared_cache``.
        framing: what is cut out of the pictures; squares by default.
        progress: whether to show it.
        tags: variants of the captions of the split ``train`` that are encoded as well.

    Raises:
        UserError: a shard is not what the manifest says, or its table does not know what ``framing`` needs.
        Busy: the cache is being pruned.
        RuntimeError: a picture cannot be decoded, or its latent is not finite; names shard and key.
    """
    framing = framing or Framing(curate_dir)
    hold(model, cache_dir / LISTINGS)
    remove_abandoned(cache_dir)
    if tags:
        tag_variants.note(cache_dir, tags)
    pictures = _PictureEncoders(model, cache_dir)
    conditioning = Packs(_held(model, _captions_folder(model, cache_dir)), check=True)
    stale = _incomplete(model, shards, cache_dir, framing, pictures, conditioning, tags)
    captions = _Encoder(conditioning, lambda items: _encode_captions(model, items), ENCODE_BATCH)
    total = sum(info.samples for info in stale)
    with Bar(total=total, desc="encode", unit="img", disable=not (progress and stale)) as bar:
        for info in stale:
            shard = intact(curate_dir, info)
            listing = Listing([], [], [])
            views_of = framing.views(model.resolution, info)
            for sample in read_shard(shard):
                digest = content_hash(sample.image)
                pictures.add(shard, sample, digest, views_of(sample.key))
                varied = tags if info.split == "train" else None
                for caption in texts_of(sample.captions, varied):
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
    model: LatentDiffusion,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing | None = None,
    *,
    tags: TagVariants | None = None,
) -> EncodedSplit:
    """Open what :func:`encode_shards` wrote, of the same ``framing``; of ``tags`` the variants are trained on.

    Samples are in the order of their hashed keys, so that neither the size of shards nor how they are
    divided changes an order of training.

    Raises:
        RuntimeError: some of it was deleted meanwhile.
        Busy: the cache is being pruned.
    """
    hold(model, cache_dir / LISTINGS)
    touch(listing_path(cache_dir, info) for info in shards)
    listings = [read_listing(listing_path(cache_dir, info)) for info in shards]
    framing = framing or Framing(cache_dir)  # of squares, which needs no curation
    samples = [
        sample
        for info, listing in zip(shards, listings, strict=True)
        if listing
        for sample in zip(
            listing.keys,
            listing.pictures,
            listing.captions,
            map(framing.views(model.resolution, info), listing.keys),
            strict=True,
        )
    ]
    order = np.argsort(key_hashes(key for key, *_ in samples), kind="stable")
    samples = [samples[index] for index in order]
    texts = [texts_of(captions, tags) for _, _, captions, _ in samples]
    rows = partial(_rows, model, complete=None not in listings, cache_dir=cache_dir)
    folder = _captions_folder(model, cache_dir)
    conditioning = rows(folder, [content_hash(text.encode()) for each in texts for text in each])
    pictures = [(digest, views) for _, digest, _, views in samples]
    latents = _pictures(pictures, lambda view, found: rows(_folder(model, cache_dir, view), found))
    return EncodedSplit(
        keys=[key for key, *_ in samples],
        captions=[captions[0] for _, _, captions, _ in samples],
        latents=latents,
        conditioning=conditioning,
        offsets=np.cumsum([0, *map(len, texts)]),
        empty=model.encode_captions([""]).to("cpu"),
        written=np.array([len(captions) for _, _, captions, _ in samples]) if tags else None,
    )


def _rows(
    model: LatentDiffusion, folder: Path, digests: Sequence[bytes], complete: bool, cache_dir: Path
) -> Rows:
    """The entries of a folder under some content hashes."""
    packs = Packs(_held(model, folder), check=False)
    places = packs.find(hashes(digests))
    if not complete or (places < 0).any():
        raise RuntimeError(f"{cache_dir} has lost files; the same command again replaces them")
    return packs.rows(places)


def _pictures(
    samples: Sequence[tuple[bytes, tuple[View, ...]]],
    rows: Callable[[View, list[bytes]], Rows],
) -> Pictures:
    """The views of pictures, given as their content hashes and which views there are of each."""
    digests: defaultdict[View, list[bytes]] = defaultdict(list)
    count = len(samples[0][1]) if samples else 1
    part, row = (np.zeros((count, len(samples)), np.int32) for _ in range(2))
    numbers: dict[View, int] = {}
    for place, (digest, views) in enumerate(samples):
        for number, view in enumerate(views):
            part[number, place] = numbers.setdefault(view, len(numbers))
            row[number, place] = len(digests[view])
            digests[view].append(digest)
    return Pictures([rows(view, digests[view]) for view in numbers], part, row)


def remove_former(cache_dir: Path) -> None:
    """Delete a cache of versions that kept latents by shard, in ``<run>/finetune/cache``, and say so."""
    if cache_dir.is_dir():
        shutil.rmtree(cache_dir)
        Bar.write(f"{cache_dir} was deleted: latents are kept for all runs now")


def to_square(image: Image.Image, resolution: int) -> Image.Image:
    """The shorter side resized to ``resolution`` pixels (bicubic, antialiased), the centre cropped."""
    return Crop.square(image.size, resolution).cut(image)


def _folder(model: LatentDiffusion, cache_dir: Path, view: View) -> Path:
    """Where the latents of a view are, by this model's VAE."""
    return cache_dir / LATENTS / _name(f"{view.described()} {model.image_fingerprint()}")


def _captions_folder(model: LatentDiffusion, cache_dir: Path) -> Path:
    """Where the conditioning by this model's text encoders is."""
    return cache_dir / CONDITIONING / _name(model.caption_fingerprint())


def _name(made_by: str) -> str:
    return hashlib.sha256(made_by.encode()).hexdigest()[:32]


def _held(model: LatentDiffusion, folder: Path) -> Path:
    """A folder of the cache, of which nothing is pruned from now on."""
    hold(model, folder)
    return folder


def _incomplete(
    model: LatentDiffusion,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing,
    pictures: _PictureEncoders,
    conditioning: Packs,
    tags: TagVariants | None,
) -> list[ShardInfo]:
    """The shards that were never listed, or of which a view of a picture or a caption is missing."""
    listings = [read_listing(listing_path(cache_dir, info)) for info in shards]
    known = [listing or Listing([], [], []) for listing in listings]
    used = [tags if info.split == "train" else None for info in shards]
    texts = [
        [text for captions in each.captions for text in texts_of(captions, varied)]
        for each, varied in zip(known, used, strict=True)
    ]
    captions = conditioning.hold([[content_hash(t.encode()) for t in each] for each in texts])
    wanted: defaultdict[View, list[list[bytes]]] = defaultdict(lambda: [[] for _ in known])
    for number, (info, each) in enumerate(zip(shards, known, strict=True)):
        views_of = framing.views(model.resolution, info)
        for key, digest in zip(each.keys, each.pictures, strict=True):
            for view in dict.fromkeys(views_of(key)):
                wanted[view][number].append(digest)
    complete = np.array(captions, bool)
    for view, groups in wanted.items():
        complete &= pictures.of(view).packs.hold(groups)
    return [
        info
        for info, listing, whole in zip(shards, listings, complete.tolist(), strict=True)
        if listing is None or not whole
    ]


class _Encoder:
    """Encodes each new item once, in batches of one size, and writes the results in packs."""

    def __init__(
        self, packs: Packs, encode: Callable[[list[Any]], dict[str, Tensor]], size: int
    ) -> None:
        self.packs, self._encode, self._size = packs, encode, size
        self._added: set[bytes] = set()
        self._queue: dict[bytes, Any] = {}
        self._done: list[tuple[list[bytes], dict[str, Tensor]]] = []

    def lacks(self, digest: bytes) -> bool:
        """Whether what has this content hash still has to be added."""
        return digest not in self._added and self.packs.find(hashes([digest]))[0] < 0

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
        self.write()

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
        """Write what is encoded."""
        if not self._done:
            return
        digests = [digest for digests, _ in self._done for digest in digests]
        names = self._done[0][1]
        tensors = {
            name: torch.cat([each[name] for _, each in self._done]).contiguous() for name in names
        }
        write_pack(self.packs.folder, digests, tensors)
        self._done.clear()


class _PictureEncoders:
    """An :class:`_Encoder` for each view, which is a folder of the cache; a picture is decoded once for all."""

    def __init__(self, model: LatentDiffusion, cache_dir: Path) -> None:
        self._model, self._cache_dir = model, cache_dir
        self._encoders: dict[View, _Encoder] = {}

    def of(self, view: View) -> _Encoder:
        """The one of a view."""
        if view not in self._encoders:
            folder = _held(self._model, _folder(self._model, self._cache_dir, view))
            self._encoders[view] = _Encoder(
                Packs(folder, check=True),
                lambda items: _encode_pictures(self._model, items),
                pictures_at_once(math.sqrt(math.prod(view.target))),
            )
        return self._encoders[view]

    def add(self, shard: Path, sample: Sample, digest: bytes, views: Iterable[View]) -> None:
        """Encode those views of a sample's picture that are missing, now or with those that follow."""
        missing = [view for view in dict.fromkeys(views) if self.of(view).lacks(digest)]
        if not missing:
            return
        image = _decoded(shard, sample)
        for view in missing:
            crop = view.cropped(image.size, digest)
            pixels = np.asarray(crop.cut(image))
            self._encoders[view].add(digest, _Picture(shard, sample.key, pixels, crop, view))
        while sum(each.waiting for each in self._encoders.values()) > MOST_WAITING:
            max(self._encoders.values(), key=lambda each: each.waiting).write()

    def finish(self) -> None:
        """Encode and write what is left."""
        for encoder in self._encoders.values():
            encoder.finish()


@dataclass(frozen=True, slots=True)
class _Picture:
    """Pixels [height, width, 3] uint8, where they are from, and what they are of the picture."""

    shard: Path
    key: str
    pixels: np.ndarray
    crop: Crop
    view: View


def _decoded(shard: Path, sample: Sample) -> Image.Image:
    try:
        return decode(sample.image)
    except UnreadableImage as error:
        raise RuntimeError(
            f"{shard}: the picture of {sample.key} is unreadable: {error}"
        ) from error


def _encode_pictures(model: LatentDiffusion, pictures: Sequence[_Picture]) -> dict[str, Tensor]:
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
