"""Encode what the cache lacks of some shards, and open a split that it holds."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from curate.pack.buckets import key_hashes
from curate.pack.sample import Sample, read_shard
from curate.run import tag_variants
from curate.run.manifest import ShardInfo, intact
from curate.run.progress import Bar
from curate.run.shared_cache import LISTINGS, remove_abandoned, touch
from curate.run.threads import in_order
from finetune.cache.encoders import (
    ENCODE_BATCH,
    Cut,
    PictureEncoders,
    caption_encoder,
    cut_out,
)
from finetune.cache.folders import captions_folder, held, latents_folder
from finetune.cache.framing import Framing, View
from finetune.cache.hold import hold
from finetune.cache.listing import Listing, listing_path, read_listing, write_listing
from finetune.cache.packs import Packs, content_hash, hashes
from finetune.cache.pictures import Pictures
from finetune.cache.rows import Rows
from finetune.cache.split import EncodedSplit
from finetune.models.interface import LatentDiffusion
from finetune.tags import TagVariants, texts_of

_THREADS = min(8, os.cpu_count() or 1)  # that decode pictures and write packs
_AHEAD = 2 * ENCODE_BATCH  # pictures that are decoded before the encoders need them


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
    with ThreadPoolExecutor(_THREADS) as pool:
        pictures = PictureEncoders(model, cache_dir, pool)
        conditioning = Packs(held(model, captions_folder(model, cache_dir)), check=True)
        stale = _incomplete(model, shards, cache_dir, framing, pictures, conditioning, tags)
        captions = caption_encoder(model, conditioning, pool)
        total = sum(info.samples for info in stale)
        with Bar(total=total, desc="encode", unit="img", disable=not (progress and stale)) as bar:
            for info in stale:
                shard = intact(curate_dir, info)
                listing = Listing([], [], [])
                views_of = framing.views(model.resolution, info)
                varied = tags if info.split == "train" else None
                for sample, digest, cuts in _cut_out(shard, views_of, pictures, pool):
                    pictures.add(digest, cuts)
                    for caption in texts_of(sample.captions, varied):
                        if captions.claim(digest_of_text := content_hash(caption.encode())):
                            captions.add(digest_of_text, caption)
                    listing.keys.append(sample.key)
                    listing.pictures.append(digest)
                    listing.captions.append(sample.captions)
                    bar.update()
                write_listing(listing_path(cache_dir, info), listing)
            pictures.finish()
            captions.finish()


def _cut_out(
    shard: Path,
    views_of: Callable[[str], tuple[View, ...]],
    pictures: PictureEncoders,
    pool: Executor,
) -> Iterator[tuple[Sample, bytes, list[Cut]]]:
    """Each sample of a shard, its picture's content hash, and the views that the cache lacks, decoded ahead."""

    def lacking() -> Iterator[tuple[Sample, bytes, list[View]]]:
        for sample in read_shard(shard):
            digest = content_hash(sample.image)
            yield sample, digest, pictures.claim(digest, views_of(sample.key))

    def decoded(found: tuple[Sample, bytes, list[View]]) -> tuple[Sample, bytes, list[Cut]]:
        sample, digest, views = found
        return sample, digest, cut_out(shard, sample, digest, views)

    return in_order(pool, decoded, lacking(), _AHEAD)


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
    folder = captions_folder(model, cache_dir)
    conditioning = rows(folder, [content_hash(text.encode()) for each in texts for text in each])
    pictures = [(digest, views) for _, digest, _, views in samples]
    latents = _pictures(
        pictures, lambda view, found: rows(latents_folder(model, cache_dir, view), found)
    )
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
    packs = Packs(held(model, folder), check=False)
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


def _incomplete(
    model: LatentDiffusion,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    framing: Framing,
    pictures: PictureEncoders,
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
