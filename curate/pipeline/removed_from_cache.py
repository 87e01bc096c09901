"""Removed pictures leave ``<run.root>/.cache`` as well: measurements, captions, latents, hidden states, listings."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from curate.run import encoded, ledger, tag_variants
from curate.run.folder import CURATED
from curate.run.locks import locked
from curate.run.removals import Removals, identities
from curate.run.schema import UserError
from curate.run.shared_cache import ANNOTATIONS, CACHE, CONDITIONING, LATENTS, LISTINGS

_WORDS = {
    ANNOTATIONS: "the measurements of {} pictures",
    LATENTS: "{} latents",
    CONDITIONING: "the hidden states of {} captions",
    LISTINGS: "{} listings of shards",
}


def root_of(curate_dir: Path) -> Path:
    """The ``run.root`` of a curation."""
    run_dir = curate_dir.parent
    return run_dir.parent if run_dir.name else run_dir.absolute().parent


@contextmanager
def exclusive(curate_dir: Path) -> Iterator[None]:
    """Let no other removal and no pruning change the cache, if there is one.

    Raises:
        Busy: another one is at work.
    """
    cache_dir = root_of(curate_dir) / CACHE
    if not cache_dir.is_dir():
        yield
        return
    with locked(cache_dir, "run.root"):
        yield


def take_out(
    curate_dir: Path, known: Removals, concerned: Mapping[str, Collection[str]]
) -> Counter[str]:
    """Take all that was ever removed from a run out of the cache; returns how much went, by kind.

    Call it before shards are rewritten: these alone say what a picture was stored as. Doing it again
    changes nothing.

    Args:
        curate_dir: the run's curation.
        known: its removals.
        concerned: for each shard that still holds removed pictures, their keys.
    """
    from curate.annotate import store

    cache_dir = root_of(curate_dir) / CACHE
    if not cache_dir.is_dir():
        return Counter()
    found = Counter({ANNOTATIONS: store.take_out(cache_dir, known.sha256)})
    pictures = {bytes.fromhex(digits) for digits in known.sha256}
    for shard, keys in concerned.items():
        pictures |= set(_stored(curate_dir / shard, keys))
    gone, others = _captions(curate_dir, known)
    texts = {*tag_variants.encoded_of(cache_dir, gone)} - others
    captions = {hashlib.sha256(text.encode()).digest() for text in texts}
    return found + encoded.take_out(cache_dir, pictures, captions)


def in_words(taken: Mapping[str, int]) -> str:
    """Such as ``2 latents, 1 listings of shards``; "" where nothing was taken out."""
    return ", ".join(words.format(taken[kind]) for kind, words in _WORDS.items() if taken.get(kind))


def other_runs(curate_dir: Path, known: Removals) -> dict[str, str]:
    """The other runs of the same root whose shards hold removed files, each with how many, in words."""
    found: dict[str, str] = {}
    root = root_of(curate_dir)
    for name in CURATED.of(root):
        if (root / name / CURATED.stage).samefile(curate_dir):
            continue
        try:
            rows = ledger.read(root / name / CURATED.stage, ["key", "sha256", "kept"])
        except (FileNotFoundError, UserError):
            found[name] = "perhaps some of them, as its ledger cannot be read"
            continue
        held = rows[rows["kept"] & rows["sha256"].isin(known.sha256)]
        if len(held):
            found[name] = f"{held['key'].nunique()} of them"
    return found


def _stored(path: Path, keys: Collection[str]) -> Iterator[bytes]:
    """The SHA-256 of some pictures as a shard stores them; of a shard that is gone, none."""
    if not path.is_file():  # it was empty, and deleted before an interruption
        return
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            if (
                key in keys
                and suffix not in ("json", "txt")
                and (stream := tar.extractfile(member))
            ):
                yield hashlib.sha256(stream.read()).digest()


def _captions(curate_dir: Path, known: Removals) -> tuple[set[str], set[str]]:
    """The captions that no other picture of the run has, and those that others have."""
    gone = known.drops(identities(curate_dir)).to_numpy()
    captions = ledger.read(curate_dir, ["caption"])["caption"].fillna("")
    others = set(captions[~gone])
    return set(captions[gone]) - others, others
