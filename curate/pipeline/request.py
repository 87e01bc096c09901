"""Everything that can be wrong with the request for a curation, said before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from curate import readers
from curate.annotate.config import NONE
from curate.clip import availability, models
from curate.decide import cut, held_out
from curate.pipeline import fetching, own_part
from curate.pipeline.config import CurateConfig
from curate.readers.source import Source
from curate.run import devices, remote, tracking
from curate.run.engine.config import refuse_absent
from curate.run.overrides import key_of, typed
from curate.run.schema import UserError
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
    if not config.engine.gpus_per_worker:  # otherwise the device is another machine's
        devices.refuse_absent("clip.device", config.clip.device)
    models.check(config.clip)
    tracking.refuse_absent(config.tracker)
    cut.check(
        config.filters.clip_similarity,
        config.clip,
        config.run.folder,
        config.engine.limits_in_temporary,
    )
    held_out.named_in(config.split)
    refuse_absent(config.engine)
    if any(key_of(text) == "dataset.shard" for text in typed() or []):
        print(f"note: dataset.shard is called part now; type part={config.part}", flush=True)
    if config.run.copy_to is not None:
        remote.check_writable("run.copy_to", config.run.copy_to)
    for key in ("root", "index", "spool"):
        place = getattr(config.dataset, key, None)
        remote.refuse_local_only(f"dataset.{key}", place, f"type dataset.{key}=PATH")
    _check_embeddings(config)
    if not config.dry_run:
        own_part.check(config)


def _check_clip(config: CurateConfig) -> None:
    """Check that the CLIP is to be had, unless all may have been scored."""
    measured = Path(config.run.root, CACHE, "annotations"), config.run.folder / "curate/annotations"
    if not any(any(folder.rglob("part-*.parquet")) for folder in measured):
        availability.check_available(config.clip)


def _check_embeddings(config: CurateConfig) -> None:
    """Refuse what reads the embeddings of all pictures where ``annotate.embeddings`` keeps none."""
    if config.annotate.embeddings != NONE:
        return
    needing = [
        ("filters.duplicates.cosine", config.filters.duplicates.cosine is not None, "type {}=null"),
        ("heads", bool(config.heads), "leave out {}"),
        ("split.siblings", config.split.siblings, "type {}=false"),
    ]
    for key, is_set, instead in needing:
        if is_set:
            raise UserError(
                f"annotate.embeddings=none keeps no embeddings, and {key} needs those of all pictures; "
                f"{instead.format(key)}, or type annotate.embeddings=image"
            )
