"""Latents and conditioning, computed once for each shard, in files that say what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from curate.measures.decode import UnreadableImage, decode
from curate.pack.sample import Sample, read_shard
from curate.run.files import atomic_write
from curate.run.manifest import ShardInfo
from finetune.conditioning import Conditioning
from finetune.models.interface import LatentDiffusion

ENCODE_BATCH = 32  # captions at a time, or pictures of 128 px
PREFIX = "conditioning."  # of the tensors' names in a file
OLD_NAMES = {"text": f"{PREFIX}hidden"}  # files written before there were names


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """One shard as the network is given it; the tensors are mapped from the file, not read into memory.

    Attributes:
        keys: of the samples. captions: the first one of each.
        latents: [n, C, h, w] fp32.
        conditioning: fp16, one row for each of the m distinct captions of the shard. Hidden states
            have magnitudes up to tens, which fp16 holds to three digits, in half the space.
        caption_rows: rows of ``conditioning``, those of sample i from ``offsets[i]`` up to
            ``offsets[i + 1]``.
        offsets: [n + 1] int64.
    """

    keys: list[str]
    captions: list[str]
    latents: Tensor
    conditioning: Conditioning
    caption_rows: Tensor
    offsets: Tensor

    def conditioning_of(self, sample: int, which: float) -> Conditioning:
        """That of one sample's caption: of k captions, number floor(k ``which``), 0 <= which < 1."""
        first, end = map(int, self.offsets[sample : sample + 2])
        row = int(self.caption_rows[first + int(which * (end - first))])
        return self.conditioning.take(slice(row, row + 1))


class EncodedSplit:
    """All samples of a split, by index, over however many shards they lie in."""

    def __init__(self, shards: Sequence[EncodedShard], empty: Conditioning) -> None:
        self.shards = list(shards)
        self.empty = empty  # of the empty caption alone, fp32
        self.keys = [key for shard in shards for key in shard.keys]
        self.captions = [caption for shard in shards for caption in shard.captions]
        self._starts = np.cumsum([0, *(len(shard.keys) for shard in shards)])

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def latent_shape(self) -> torch.Size:
        """[C, h, w]."""
        return self.shards[0].latents.shape[1:]

    def _find(self, indices: Tensor) -> Iterator[tuple[EncodedShard, int]]:
        for index in indices.tolist():
            shard = int(np.searchsorted(self._starts, index, side="right")) - 1
            yield self.shards[shard], index - int(self._starts[shard])

    def latents_of(self, indices: Tensor) -> Tensor:
        """[B, C, h, w] fp32."""
        return torch.stack([shard.latents[row] for shard, row in self._find(indices)])

    def conditioning_of(
        self, indices: Tensor, which: Tensor | None = None, dropped: Tensor | None = None
    ) -> Conditioning:
        """That of one caption for each of ``indices``, fp32.

        Args:
            indices: [B].
            which: [B] in [0, 1), the place in each sample's list of captions; the first by default.
            dropped: [B] bool, true where the empty caption takes the caption's place.
        """
        places = [0.0] * len(indices) if which is None else which.tolist()
        found = zip(self._find(indices), places, strict=True)
        rows = [shard.conditioning_of(row, place) for (shard, row), place in found]
        conditioning = Conditioning.cat(rows).float()
        return conditioning if dropped is None else conditioning.drop(dropped, self.empty)


def fingerprint_of(info: ShardInfo, encoders: str) -> str:
    """What a cached shard depends on: the shard's bytes and the encoders."""
    return hashlib.sha256(f"{info.sha256} {encoders}".encode()).hexdigest()


def pictures_at_once(resolution: int) -> int:
    """Batch size of the VAE, whose memory grows with the pixels.

    It changes latents by rounding only, and it follows from the resolution, which is part of the
    encoders' fingerprint.

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
    """Encode those of ``shards`` whose cache file is missing or was made from other data or encoders.

    Raises:
        RuntimeError: a picture cannot be decoded, or its latent is not finite; names shard and key.
    """
    encoders = model.encoder_fingerprint()
    stale = [info for info in shards if not _is_current(cache_dir, info, encoders)]
    total = sum(info.samples for info in stale)
    with tqdm(total=total, desc="encode", unit="img", disable=not (progress and stale)) as bar:
        for info in stale:
            tensors, names = _encode(model, curate_dir / info.path, bar)
            header = {"fingerprint": fingerprint_of(info, encoders), **names}
            # One header key alone: two would be written in any order, and the bytes would not repeat.
            data = save(tensors, {"encoded": json.dumps(header)})
            with atomic_write(_path(cache_dir, info)) as stream:
                stream.write(data)


def load_split(
    model: LatentDiffusion, shards: Sequence[ShardInfo], cache_dir: Path
) -> EncodedSplit:
    """Open what :func:`encode_shards` wrote."""
    empty = model.encode_captions([""]).to("cpu")
    return EncodedSplit([_load(_path(cache_dir, info)) for info in shards], empty)


def to_square(image: Image.Image, resolution: int) -> Image.Image:
    """The shorter side resized to ``resolution`` pixels (bicubic, antialiased), the centre cropped."""
    return ImageOps.fit(image, (resolution, resolution), method=Image.Resampling.BICUBIC)


def _path(cache_dir: Path, info: ShardInfo) -> Path:
    return cache_dir / f"{info.split}-{Path(info.path).stem}.safetensors"


def _header(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["encoded"])


def _is_current(cache_dir: Path, info: ShardInfo, encoders: str) -> bool:
    path = _path(cache_dir, info)
    return path.exists() and _header(path)["fingerprint"] == fingerprint_of(info, encoders)


def _load(path: Path) -> EncodedShard:
    header = _header(path)
    tensors = {OLD_NAMES.get(name, name): tensor for name, tensor in load_file(path).items()}
    conditioning = {
        name.removeprefix(PREFIX): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(PREFIX)
    }
    return EncodedShard(
        header["keys"], header["captions"], conditioning=Conditioning(conditioning), **tensors
    )


def _encode(
    model: LatentDiffusion, shard: Path, bar: tqdm
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    keys, captions, latents, rows, offsets = [], [], [], [], [0]
    row_of: dict[str, int] = {}
    samples = read_shard(shard)
    while batch := list(islice(samples, pictures_at_once(model.resolution))):
        latents.append(_encode_images(model, shard, batch))
        for sample in batch:
            keys.append(sample.key)
            captions.append(sample.caption)
            rows += [row_of.setdefault(caption, len(row_of)) for caption in sample.captions]
            offsets.append(len(rows))
        bar.update(len(batch))
    conditioning = _encode_captions(model, list(row_of))
    tensors = {
        "latents": torch.cat(latents).contiguous(),
        "caption_rows": torch.tensor(rows),
        "offsets": torch.tensor(offsets),
        **{PREFIX + name: tensor for name, tensor in conditioning.tensors.items()},
    }
    return tensors, {"keys": keys, "captions": captions}


def _encode_images(model: LatentDiffusion, shard: Path, batch: Sequence[Sample]) -> Tensor:
    pixels = []
    for sample in batch:
        try:
            image = decode(sample.image)
        except UnreadableImage as error:
            raise RuntimeError(
                f"{shard}: the picture of {sample.key} is unreadable: {error}"
            ) from error
        pixels.append(np.asarray(to_square(image, model.resolution)))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = model.encode_images(images).cpu()
    finite = latents.flatten(1).isfinite().all(1)
    if not finite.all():
        key = batch[int((~finite).nonzero()[0])].key
        raise RuntimeError(f"{shard}: the latent of {key} is not finite; is the VAE intact?")
    return latents


def _encode_captions(model: LatentDiffusion, captions: list[str]) -> Conditioning:
    parts = [
        model.encode_captions(captions[start : start + ENCODE_BATCH]).half().to("cpu")
        for start in range(0, len(captions), ENCODE_BATCH)
    ]
    return Conditioning.cat(parts)
