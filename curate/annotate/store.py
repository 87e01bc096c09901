"""The measurements that all runs below a ``run.root`` share, in ``<run.root>/.cache/annotations``.

``annotations/CLIP-DEVICE-BATCH/part-NAME.parquet``
    parts in the form of a run's own. The folder stands for the format, the CLIP, and the device and size of
    batch that the last digits of an embedding depend on, so that a curation gives the same bytes as without
    the store.

Pictures are found by the SHA-256 of their bytes and captions by their text, and by nothing else: a key and
version may be another picture in another data set, or under another file system. So a new run reads each
picture once, and decodes and scores only what no run has measured.

A part of a run that is new for the most part gets a second name here, a hard link, which takes no room; what
is new of other parts is written to a file of its own. A file is never changed under its name, so any number
of curations may read and add at once, and one that ends suddenly leaves nothing that others could take for a
part. Removals delete files here and write what is left under another name (``take_out``); a run's own parts
stay as they are.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.annotate.cache import AnnotationCache
from curate.annotate.known import PLACE_BITS, Known, found_by, index_those_there
from curate.annotate.parts import FORMAT, head_said, read_part
from curate.annotate.spec import AnnotationSpec
from curate.measures import registry
from curate.run import parquet
from curate.run.database import Limits
from curate.run.locks import locked
from curate.run.progress import Bar
from curate.run.removals import Removals, url_columns
from curate.run.schema import UserError
from curate.run.shared_cache import ANNOTATIONS, remove_abandoned, touch

Inode = tuple[int, int]
"""Of ``inode_of``."""

_LEAST_NEW = 0.5  # of a part's rows: from there on it is linked, not copied


def folder_of(cache_dir: Path, spec: AnnotationSpec, arithmetic: str) -> Path:
    """The folder for parts of a CLIP, with ``models.arithmetic``."""
    known = f"{FORMAT} {spec.clip_model}".encode()
    return cache_dir / ANNOTATIONS / f"{hashlib.sha256(known).hexdigest()[:16]}-{arithmetic}"


@dataclass(frozen=True)
class StorePlace:
    """Where the measurements of other runs are.

    Attributes:
        folder: of ``folder_of``.
        removals: of the run that measures; nothing of them is added.
    """

    folder: Path
    removals: Removals = field(default_factory=Removals)


@dataclass
class Used:
    """What a run has found in the store.

    Attributes:
        images, texts: how many.
        parts: in which of the parts.
    """

    images: int = 0
    texts: int = 0
    parts: set[Path] = field(default_factory=set)

    def add(self, other: Used) -> None:
        """Count what another process has found."""
        self.images += other.images
        self.texts += other.texts
        self.parts |= other.parts


@contextmanager
def opened(
    place: StorePlace,
    spec: AnnotationSpec,
    index_folder: Path,
    limits: Limits,
    but_for: Set[Inode] = frozenset(),
) -> Iterator[tuple[Known, Used]]:
    """Index the parts of the store, and keep them from being pruned until the block ends, which fills in ``Used``.

    Args:
        place: the folder is made.
        spec: what to measure.
        index_folder: for the index.
        limits: of the sorting.
        but_for: parts that are these very files are left out.

    Raises:
        Busy: the folder is being pruned.
    """
    folder, used = place.folder, Used()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "run.root", shared=True):
        remove_abandoned(folder)
        known = index_those_there(
            lambda: _usable(folder, spec, but_for), index_folder, limits, _discard
        )
        try:
            yield known, used
        finally:
            touch(used.parts)
            if used.images or used.texts:
                Bar.write(
                    f"cache: {used.images} images and {used.texts} captions were measured before, "
                    f"see {folder.parent}"
                )


class SharedStore(AnnotationCache):
    """Finds what any run has measured, and takes over what is new.

    A part that is damaged is deleted.

    Attributes:
        images, texts_found: how many were used, as the measurer counts them.
    """

    recognises_candidates = False

    def __init__(self, place: StorePlace, spec: AnnotationSpec, known: Known | None = None) -> None:
        known = known or Known()
        super().__init__(spec.measures, known)
        self.images = self.texts_found = 0
        self._folder, self._removals = place.folder, place.removals
        self._incomplete = known.incomplete

    def take_used(self) -> Used:
        """What was found since the last call."""
        found = Used(self.images, self.texts_found, self.used)
        self.images, self.texts_found, self.used = 0, 0, set()
        return found

    def keep(self, path: Path, part: pa.Table) -> None:
        """Take over what is new of ``part``, which was written to ``path`` as it is.

        Raises:
            OSError: the disk is full.
        """
        new, linkable = self._new_rows(part)
        if not new.any():
            return
        name = self._folder / f"part-{uuid.uuid4().hex}.parquet"
        if not (linkable and new.mean() >= _LEAST_NEW and _link(path, name)):
            part = part.filter(pa.array(new))
            parquet.write_table(name, part)
        self.add(name, part)

    def _new_rows(self, part: pa.Table) -> tuple[np.ndarray, bool]:
        """Mask (N,): the rows of images that hold anything new; and whether all rows may be taken over."""
        first = part["caption_index"].to_numpy() == 0
        decoded = part["pixels_sha256"].to_numpy() != ""
        measured = part["image_embedding"].is_valid().to_numpy() & decoded
        scored = part["clip_similarity"].is_valid().to_numpy()
        hashes, captions = (part[name].to_pylist() for name in ("sha256", "caption"))
        new = np.zeros(len(part), bool)
        for row in np.flatnonzero(measured):
            new[row] = self._lacks_image(hashes[row])
        for row in np.flatnonzero(scored):
            new[row] |= self._lacks(self._captions.find(found_by(captions[row])))
        image = np.cumsum(first) - 1
        of_images = np.zeros(int(first.sum()), bool)
        np.logical_or.at(of_images, image, new)
        removed = self._removed(part)
        return of_images[image] & ~removed, not removed.any()

    def _lacks_image(self, sha256: str) -> bool:
        place = self._contents.find(found_by(sha256))
        return self._lacks(place) or (place or 0) >> PLACE_BITS < self._incomplete

    def _lacks(self, place: int | None) -> bool:
        return place is None or place >> PLACE_BITS in self._lost

    def _removed(self, part: pa.Table) -> np.ndarray:
        if not (self._removals.keys or self._removals.urls or self._removals.sha256):
            return np.zeros(len(part), bool)
        columns = ["key", "sha256", *url_columns(part.column_names)]
        return self._removals.drops(part.select(columns).to_pandas()).to_numpy(bool)

    def _say_damaged(self, path: Path) -> None:
        _discard(path)


def take_out(cache_dir: Path, sha256: Set[str]) -> int:
    """Take the measurements of pictures out of the store, with their captions; returns how many pictures.

    Their rows go from all parts, of every CLIP. Captions that other pictures have, too, stay with these. A
    part that is damaged is deleted. Doing it again changes nothing, so an interrupted one is done again.
    Call it under the lock of the cache.
    """
    taken: set[str] = set()
    folder = cache_dir / ANNOTATIONS
    for path in sorted(folder.glob("*/part-*.parquet")):
        try:
            hashes = read_part(path, ["sha256"])["sha256"].to_pylist()
            goes = np.array([digest in sha256 for digest in hashes], bool)
            if not goes.any():
                continue
            part = read_part(path)
        except FileNotFoundError:
            continue
        except UserError:
            _discard(path)
            continue
        taken |= sha256 & set(hashes)
        _replace(path, part.filter(pa.array(~goes)))
    return len(taken)


def _replace(path: Path, part: pa.Table) -> None:
    """Give up a part for another one, if that holds anything, which was last used when the part was."""
    if part["image_embedding"].null_count < len(part):
        name = path.with_name(f"part-{uuid.uuid4().hex}.parquet")
        used_ns = path.stat().st_mtime_ns
        parquet.write_table(name, part)
        os.utime(name, ns=(used_ns, used_ns))
    path.unlink(missing_ok=True)


def _usable(
    folder: Path, spec: AnnotationSpec, but_for: Set[Inode]
) -> tuple[list[Path], list[Path]]:
    """The parts that lack a measure that ``spec`` asks of images, and those that have all."""
    asked = spec.measures
    of_images = [*registry.image_measures(asked), *registry.file_measures(asked)]
    wanted = {measure.name: asked[measure.name] for measure in of_images}
    incomplete: list[Path] = []
    complete: list[Path] = []
    for path, head in _heads(folder, but_for):
        if (head.get("format"), head.get("clip_model")) != (FORMAT, spec.clip_model):
            _discard(path)
        else:
            has_all = wanted.items() <= head["measures"].items()
            (complete if has_all else incomplete).append(path)
    return incomplete, complete


def _heads(folder: Path, but_for: Set[Inode]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The parts with what their footers say, which is nothing of a damaged one; read in threads."""

    def is_other(path: Path) -> bool:
        try:
            return not but_for or inode_of(path) not in but_for
        except FileNotFoundError:  # removed meanwhile
            return False

    with ThreadPoolExecutor() as pool:
        paths = sorted(folder.glob("part-*.parquet"))
        others = pool.map(is_other, paths)
        paths = [path for path, is_taken in zip(paths, others, strict=True) if is_taken]
        yield from zip(paths, pool.map(head_said, paths), strict=True)


def inode_of(path: Path) -> Inode:
    """What all names of a file share; of a file with one name, no other has it.

    Raises:
        FileNotFoundError: there is none.
    """
    found = path.stat()
    return found.st_dev, found.st_ino


def _link(path: Path, name: Path) -> bool:
    """Whether ``path`` could be given a second name; not every file system has such."""
    try:
        os.link(path, name)
    except OSError:
        return False
    return True


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:  # removed meanwhile
        return
    Bar.write(f"{path} is damaged; it was deleted, and what it held is measured again")
