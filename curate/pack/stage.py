"""Write the shards of a data set that are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from curate.pack.config import ShardsConfig
from curate.pack.images import companion_source, extension_of, image_source, images
from curate.pack.plan import Plan, is_written, plan
from curate.pack.samples import Samples
from curate.pack.writer import write_shard
from curate.run.manifest import ShardInfo
from curate.run.progress import Bar, count_done


@dataclass(frozen=True, slots=True)
class Packed:
    """The shards of a data set, in order: as planned, as written, and the extension of their images."""

    plans: list[Plan]
    shards: list[ShardInfo]
    extension: str


def write_shards(
    curate_dir: Path,
    ledger: pd.DataFrame,
    load: Callable[[str], bytes],
    config: ShardsConfig,
    workers: int,
    before_change: Callable[[Plan, str], None],
    prefix: str = "",
) -> Packed:
    """Write the shards of the kept rows of a ledger that are not there yet.

    Outdated shards stay: ``plan.remove_stale`` deletes them.

    Args:
        curate_dir: the run's ``curate`` folder.
        ledger: all pairs with their verdicts, see ``decide.stage.Verdicts``.
        load: reads an image of the source, location => bytes.
        config: the keys ``shards.*``.
        workers: threads that encode images.
        before_change: called with a shard and its digest before it is written. It has to remove the
            old manifest, which would describe shards that no longer exist.
        prefix: of the tars' names.

    Raises:
        ImageChanged: an image has changed or cannot be read any more since it was measured.
    """
    kept = Samples(ledger)
    extension = extension_of(config.image_format, kept.formats)
    settings = f"{extension} {config.jpeg_quality} plain"
    image_of = image_source(load, ledger, extension, config.jpeg_quality)
    companions_of = companion_source(load, ledger)
    plans = plan(kept.sides(), config.max_samples, prefix)
    found: list[ShardInfo] = []
    with (
        ThreadPoolExecutor(workers) as pool,
        Bar(total=len(kept), desc="shards", unit="img") as bar,
    ):
        for planned, wanted in zip(plans, kept.digests(plans, settings), strict=True):
            info = is_written(curate_dir, planned, wanted)
            if info is not None:
                count_done(bar, info.samples)
            else:
                before_change(planned, wanted)
                rows = kept.rows(planned.keys)
                with closing(images(pool, image_of, rows, extension, 2 * workers)) as stored:
                    info = write_shard(
                        curate_dir,
                        planned,
                        rows,
                        wanted,
                        extension,
                        stored,
                        bar.update,
                        companions_of,
                    )
            found.append(info)
    return Packed(plans, found, extension)
