"""Latents and conditioning, encoded once for all runs and kept by what they were made from.

The cache lies in ``<run.root>/.cache``, beside the measurements of curations (``curate.run.shared_cache``).
Trainings only add to it, any number of them may use it at once, and what is deleted from it is made again:
``python -m workflows.prune`` deletes what was not used for longest and nobody holds, ``python -m
curate.remove`` what was made of removed pictures (``curate.run.encoded``).

``shards/SHA256.json``
    what a shard of this hash holds: keys, captions, hashes of the pictures. With it the shard itself is
    opened only if a picture or caption of it is not encoded yet.
``latents/ENCODER/SHA256.safetensors``
    up to ``packs.ENTRIES`` latents, each under the hash of the picture's bytes; the folder stands for the
    VAE, and the size and the crop, see ``framing.View``.
``conditioning/ENCODER/SHA256.safetensors``
    the same for captions, each under the hash of its text; the folder stands for the text encoder, or, where token
    ids are kept (``cache.captions=tokens``), for the tokenizer.

A shard is compared with the manifest's hash whenever it is opened. Each file of the cache is compared with a
hash of its whole content before a training or evaluation uses it: a listing's is in its first line, a pack's
is its name. That reads the packs in use at every start, at more than 1 GB/s for each core. A check that is
remembered would cost less, and would miss all damage after it.
"""

from curate.run.shared_cache import CACHE
from finetune.cache.companions import Recipe, encode_companions, load_companions, views_of
from finetune.cache.encode import encode_shards, load_split, remove_former
from finetune.cache.encoders import pictures_at_once
from finetune.cache.split import EncodedSplit

__all__ = [
    "CACHE",
    "EncodedSplit",
    "Recipe",
    "encode_companions",
    "encode_shards",
    "load_companions",
    "load_split",
    "pictures_at_once",
    "remove_former",
    "views_of",
]
