"""Latents and conditioning, encoded once for all runs and kept by what they were made from.

The cache lies in ``<run.root>/.cache``. It only ever grows, any number of trainings may use it at once,
and what is deleted from it is made again:

``shards/SHA256.json``
    what a shard of this hash holds: keys, captions, hashes of the pictures. With it the shard itself is
    opened only if a picture or caption of it is not encoded yet.
``latents/ENCODER/SHA256.safetensors``
    up to ``packs.ENTRIES`` latents, each under the hash of the picture's bytes; the folder stands for the
    VAE, the resolution and the crop.
``conditioning/ENCODER/SHA256.safetensors``
    the same for captions, each under the hash of its text; the folder stands for the text encoder.

Each file is checked by a hash of its whole content before it is used in a training: a listing's is in its
first line, a pack's is its name. The check reads the packs that a training uses, about 1.5 GB/s for each
core, and is made at every start, because a remembered check would not find a disk that forgets.
"""

from finetune.cache.encode import encode_shards, load_split, remove_former
from finetune.cache.split import EncodedSplit

CACHE = ".cache"
"""The cache's folder, in ``run.root``."""

__all__ = ["CACHE", "EncodedSplit", "encode_shards", "load_split", "remove_former"]
