"""What is made of a picture or of a picture beside it at the size of the latents or pixels, kept like latents.

The packs lie beside those of the latents, ``latents/RECIPE/SHA256.safetensors``, each entry under the hash of the
stored bytes that it was made of: of ``key.mask.png``, of ``key.control.png``, or of the picture itself. So what is
removed from a curation is taken out of them as latents are (``curate.run.encoded``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curate.measures.unreadable import UnreadableImage
from curate.pack.sample import Sample, read_shard
from curate.run.companions import sha256_column
from curate.run.manifest import ShardInfo, intact
from curate.run.progress import Bar
from curate.run.shared_cache import LATENTS
from finetune.cache.framing import Framing, View
from finetune.cache.hold import hold
from finetune.cache.listing import listing_path, read_listing
from finetune.cache.packs import ENTRIES, Packs, content_hash, hashes, write_pack
from finetune.cache.rows import Rows
from finetune.cache.split import EncodedSplit
from finetune.models.interface import LatentDiffusion
from finetune.sidecars import read_columns

_ENTRY = "made"  # the tensor of a pack
_ANY = ShardInfo("", "", 0, 0, "")  # squares are the same of any shard


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an entry of the conditioning is made.

    Attributes:
        name: of the entry.
        kind: of the companion that it is made of; None: of the picture itself.
        made_by: changes with everything that the entry depends on, the bytes and the view aside.
        make: of the encoded bytes of one picture, and of how it is cut out.
        nbytes: that one entry takes.
        default: of pictures without the companion; None where all have it.
    """

    name: str
    kind: str | None
    made_by: str
    make: Callable[[bytes, View], Tensor]
    nbytes: int
    default: Tensor | None = None

    def folder(self, cache_dir: Path, view: View) -> Path:
        """Of its packs of a view."""
        made_by = f"{self.name} {self.made_by} {view.described()}"
        digest = hashlib.sha256(made_by.encode()).hexdigest()
        return cache_dir / LATENTS / digest[:32]

    def bytes_of(self, sample: Sample) -> bytes | None:
        """What it is made of; None where the sample has none."""
        return sample.image if self.kind is None else sample.companions.get(self.kind)


class Entries:
    """An entry of each of N samples in each of V views, mapped from the cache's files."""

    def __init__(
        self, views: Sequence[Rows | None], of_sample: np.ndarray, default: Tensor | None
    ) -> None:
        """``of_sample`` [N] are the samples' places among the rows of each view, -1 for ``default``."""
        self._views, self._of_sample, self._default = list(views), of_sample, default

    def take(self, indices: np.ndarray, views: np.ndarray) -> Tensor:
        """[B, ...] of some samples, one view of each."""
        found = []
        for place, view in zip(self._of_sample[indices].tolist(), views.tolist(), strict=True):
            made = self._default if place < 0 else self._row(view, place)
            assert made is not None
            found.append(made)
        return torch.stack(found)

    def _row(self, view: int, place: int) -> Tensor:
        rows = self._views[view]
        assert rows is not None
        return rows.take([place])[_ENTRY][0]


def views_of(framing: Framing, resolution: int) -> tuple[View, ...]:
    """The views that pictures beside pictures have: the square from the centre, and mirrored, if it is flipped.

    How latents are kept does not matter to them.
    """
    plain = replace(framing, buckets=(), crops=1, posterior=False, half=False)
    return plain.views(resolution, _ANY)("")


def encode_companions(
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    recipes: Sequence[Recipe],
    framing: Framing,
    *,
    progress: bool = True,
) -> None:
    """Make what the cache does not hold yet of ``shards``.

    Raises:
        UserError: a shard is not what the manifest says.
        RuntimeError: a picture cannot be decoded; names shard and key.
    """
    views = views_of(framing, model.resolution)
    for recipe, view in product(recipes, views):
        hold(model, folder := recipe.folder(cache_dir, view))
        packs = Packs(folder, check=True)
        wanted = [_digests(curate_dir, info, cache_dir, recipe).values() for info in shards]
        whole = packs.hold([[each for each in digests if each] for digests in wanted])
        stale = [info for info, held in zip(shards, whole, strict=True) if not held]
        total = sum(info.samples for info in stale)
        shown = progress and bool(stale)
        with Bar(total=total, desc=recipe.name, unit="img", disable=not shown) as bar:
            for info in stale:
                _encode(recipe, view, packs, intact(curate_dir, info), bar)


def load_companions(
    model: LatentDiffusion,
    split: EncodedSplit,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    cache_dir: Path,
    recipes: Sequence[Recipe],
    framing: Framing,
) -> EncodedSplit:
    """Give ``split`` the entries that :func:`encode_companions` made of its shards; returns it.

    Raises:
        RuntimeError: some of them were deleted meanwhile.
    """
    for recipe in recipes:
        digests: dict[str, bytes | None] = {}
        for info in shards:
            digests |= _digests(curate_dir, info, cache_dir, recipe)
        own = [digests[key] for key in split.keys]
        there = np.array([each is not None for each in own], bool)
        of_sample = np.full(len(own), -1)
        of_sample[there] = np.arange(there.sum())
        rows = []
        for view in views_of(framing, model.resolution):
            hold(model, folder := recipe.folder(cache_dir, view))
            packs = Packs(folder, check=False)
            places = packs.find(hashes([each for each in own if each]))
            if (places < 0).any() or (recipe.default is None and not there.all()):
                raise RuntimeError(
                    f"{cache_dir} has lost files; the same command again replaces them"
                )
            rows.append(packs.rows(places) if len(places) else None)
        split.entries[recipe.name] = Entries(rows, of_sample, recipe.default)
    return split


def _digests(
    curate_dir: Path, info: ShardInfo, cache_dir: Path, recipe: Recipe
) -> dict[str, bytes | None]:
    """By the keys of a shard, the hash of the bytes that an entry is made of; None where there are none."""
    if recipe.kind is None:
        listing = read_listing(listing_path(cache_dir, info))
        if listing is None:
            raise RuntimeError(f"{cache_dir} has lost files; the same command again replaces them")
        return dict(zip(listing.keys, listing.pictures, strict=True))
    column = sha256_column(recipe.kind)
    table = read_columns(curate_dir, info, ("key", column))
    keys = table["key"].to_pylist()
    if column not in table.column_names:
        return dict.fromkeys(keys)
    found = (None if each is None else bytes.fromhex(each) for each in table[column].to_pylist())
    return dict(zip(keys, found, strict=True))


def _encode(recipe: Recipe, view: View, packs: Packs, shard: Path, bar: Bar) -> None:
    """Make and write what is missing of one shard."""
    made: dict[bytes, Tensor] = {}
    for sample in read_shard(shard):
        bar.update()
        if (data := recipe.bytes_of(sample)) is None:
            continue
        digest = content_hash(data)
        if digest in made or packs.find(hashes([digest]))[0] >= 0:
            continue
        try:
            made[digest] = recipe.make(data, view)
        except UnreadableImage as error:
            raise RuntimeError(
                f"{shard}: the {recipe.kind or 'picture'} of {sample.key} is unreadable: {error}"
            ) from error
        if len(made) == ENTRIES:
            _write(packs.folder, made)
    _write(packs.folder, made)


def _write(folder: Path, made: dict[bytes, Tensor]) -> None:
    if made:
        write_pack(folder, list(made), {_ENTRY: torch.stack(list(made.values()))})
        made.clear()
