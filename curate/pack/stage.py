"""Bring the folder of shards up to date: write what is missing, delete what is outdated."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from curate.pack.config import ShardsConfig
from curate.pack.images import extension_of, image_source, images
from curate.pack.plan import Plan, digest, is_written, plan, remove_stale
from curate.pack.samples import Samples
from curate.pack.writer import write_shard
from curate.run.manifest import Manifest, ShardInfo, retire

Finished = Callable[[list[ShardInfo], str], Manifest]
"""All shards in order and the extension of their images => the manifest of the finished set."""


def write_shards(
    curate_dir: Path,
    ledger: pd.DataFrame,
    load: Callable[[str], bytes],
    config: ShardsConfig,
    workers: int,
    finished: Finished,
) -> tuple[list[Plan], Manifest]:
    """Bring ``curate_dir/shards`` up to date with the kept rows of a ledger.

    The old manifest is removed before the first file changes, because it would describe shards that
    no longer exist.

    Args:
        curate_dir: the run's ``curate`` folder.
        ledger: all pairs with their verdicts, see ``decide.stage.Verdicts``.
        load: reads an image of the source, location => bytes.
        config: the keys ``shards.*``.
        workers: threads that encode images.
        finished: makes the manifest, which the caller writes last.

    Raises:
        UserError: an image has changed or cannot be read any more since it was measured.
    """
    kept = Samples(ledger)
    extension = extension_of(config.image_format, kept.formats)
    settings = f"{extension} {config.jpeg_quality} plain"
    image_of = image_source(load, ledger, extension, config.jpeg_quality)
    plans = plan(kept.sides(), config.max_samples)
    found: list[ShardInfo] = []
    changes = False
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(kept), desc="shards", unit="img") as bar,
    ):
        for planned in plans:
            rows = kept.rows(planned.keys)
            wanted = digest(rows, settings)
            info = is_written(curate_dir, planned, wanted)
            if info is not None:
                bar.initial += info.samples  # not counted in the speed
                bar.update(info.samples)
            else:
                if not changes:
                    retire(curate_dir)
                changes = True
                with closing(images(pool, image_of, rows, extension, 2 * workers)) as stored:
                    info = write_shard(
                        curate_dir, planned, rows, wanted, extension, stored, bar.update
                    )
            found.append(info)
    manifest = finished(found, extension)
    retire(curate_dir, unless=manifest)
    remove_stale(curate_dir, plans)
    return plans, manifest
