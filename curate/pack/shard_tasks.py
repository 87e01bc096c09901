"""What workers do for shards: say which are there as they should be, and write the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from curate.pack.images import ImageChanged, companion_source, image_source, images
from curate.pack.plan import Plan, is_outdated, is_written
from curate.pack.samples import Samples
from curate.pack.sorting import SortedRows
from curate.pack.writer import write_shard
from curate.run.engine.tasks import Progress
from curate.run.manifest import ShardInfo

Load = Callable[[str], bytes]
"""Reads an image of the source, location => bytes."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures are stored: ``jpg`` or ``png``, and the quality of those that are encoded again."""

    extension: str
    jpeg_quality: int

    def settings(self) -> str:
        """What the bytes of a shard depend on beside its rows."""
        return f"{self.extension} {self.jpeg_quality} plain"


@dataclass(frozen=True, slots=True)
class Some:
    """Shards whose rows are in one file."""

    plans: list[Plan]

    def __str__(self) -> str:
        """How a message names them."""
        return f"{len(self.plans)} shards from {self.plans[0].path}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A shard: the digest that it should have, what is there with this digest, and whether another is there."""

    planned: Plan
    digest: str
    written: ShardInfo | None
    outdated: bool

    def __str__(self) -> str:
        """How a message names it."""
        return self.planned.path


@dataclass(frozen=True, slots=True)
class Changed:
    """The image of a shard that is not as it was measured, see ``ImageChanged``."""

    place: int
    key: str
    how: str


@contextmanager
def checking(
    curate_dir: Path, rows: SortedRows, encoding: Encoding
) -> Iterator[Callable[[Some, Progress], list[Checked]]]:
    """A worker that computes the digests of some shards and compares them with what is there."""

    def check(task: Some, progress: Progress) -> list[Checked]:
        found = []
        for planned in task.plans:
            digest = _samples(rows, planned).digest(encoding.settings())
            written = is_written(curate_dir, planned, digest)
            outdated = written is None and is_outdated(curate_dir, planned, digest)
            found.append(Checked(planned, digest, written, outdated))
        return found

    yield check


@contextmanager
def writing(
    curate_dir: Path,
    rows: SortedRows,
    encoding: Encoding,
    load: Load,
    threads: int,
) -> Iterator[Callable[[Checked, Progress], ShardInfo | Changed]]:
    """A worker that writes a shard.

    Args:
        curate_dir: the run's ``curate`` folder.
        rows: of all shards.
        encoding: of their pictures.
        load: reads an image of the source.
        threads: that encode pictures.
    """

    def write(wanted: Checked, progress: Progress) -> ShardInfo | Changed:
        planned, samples = wanted.planned, _samples(rows, wanted.planned)
        made, extension = samples.rows(), encoding.extension
        image_of = image_source(load, samples.locations(), extension, encoding.jpeg_quality)
        companions_of = companion_source(load, samples.companion_locations())
        try:
            with closing(images(pool, image_of, made, extension, 2 * threads)) as stored:
                return write_shard(
                    curate_dir,
                    planned,
                    made,
                    wanted.digest,
                    extension,
                    stored,
                    lambda: progress(1),
                    companions_of,
                )
        except ImageChanged as error:
            return Changed(planned.place, error.key, error.how)

    with ThreadPoolExecutor(threads) as pool:
        yield write


def _samples(rows: SortedRows, planned: Plan) -> Samples:
    samples = Samples(rows.read(planned.place))
    if len(samples) != planned.samples:
        raise RuntimeError(f"{len(samples)} images for {planned.path}, not {planned.samples}")
    return samples
