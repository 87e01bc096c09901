"""Everything that can be wrong with the request for a curation, said before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from curate import readers
from curate.clip import availability, models
from curate.decide import cut, held_out
from curate.pipeline import fetching, own_part
from curate.pipeline.config import CurateConfig
from curate.readers.source import Source
from curate.run import devices, tracking
from curate.run.shared_cache import CACHE


def examine(config: CurateConfig) -> Source:
    """Open the data set, once all settings are known to be usable here; before that, fetch what is asked for.

    Raises:
        UserError: a device, package, model or rule is not to be had, or the data set cannot be read.
        FileNotFoundError: a file or folder that the settings name is not there.
    """
    _check_settings(config)
    if fetching.is_asked_for(config):
        _check_clip(config)  # before hours of fetching
    fetching.settle(config)
    source = readers.read(config.dataset)
    _check_clip(config)
    return source


def check(config: CurateConfig) -> None:
    """As `examine`, for a curation that starts later: what that one is to fetch is not looked at.

    Raises:
        UserError, FileNotFoundError: as `examine`.
    """
    _check_settings(config)
    if not fetching.is_asked_for(config):
        readers.read(config.dataset)
    _check_clip(config)


def _check_settings(config: CurateConfig) -> None:
    devices.refuse_absent("clip.device", config.clip.device)
    models.check(config.clip)
    tracking.refuse_absent(config.tracker)
    cut.check(config.filters.clip_similarity, config.clip, config.run.folder)
    held_out.named_in(config.split)
    if not config.dry_run:
        own_part.check(config)


def _check_clip(config: CurateConfig) -> None:
    """Check that the CLIP is to be had, unless all may have been scored."""
    measured = Path(config.run.root, CACHE, "annotations"), config.run.folder / "curate/annotations"
    if not any(any(folder.rglob("part-*.parquet")) for folder in measured):
        availability.check_available(config.clip)
