"""The command ``python -m curate``: check the configuration and the input, then run the pipeline."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from curate.pipeline.config import CurateConfig
from curate.run import cli
from curate.run.schema import to_dataclass
from curate.run.shared_cache import CACHE


@hydra.main(version_base="1.3", config_path="../conf", config_name="curate")
@cli.polite
def main(cfg: DictConfig) -> None:
    """Everything that can be wrong with the request is said before anything heavy is imported."""
    config = to_dataclass(cfg, CurateConfig)
    from curate import readers
    from curate.clip import availability, models
    from curate.decide import cut, held_out
    from curate.pipeline import own_part
    from curate.run import devices, tracking
    from curate.run.finished import refuse_finished

    if not config.dry_run:
        refuse_finished(config.run.folder)
    devices.refuse_absent("clip.device", config.clip.device)
    models.check(config.clip)
    tracking.refuse_absent(config.tracker)
    cut.check(config.filters.clip_similarity, config.clip, config.run.folder)
    held_out.named_in(config.split)
    if not config.dry_run:
        own_part.check(config)
    source = readers.read(config.dataset)
    measured = Path(config.run.root, CACHE, "annotations"), config.run.folder / "curate/annotations"
    if not any(any(folder.rglob("part-*.parquet")) for folder in measured):
        availability.check_available(config.clip)  # else all may have been scored
    if config.dry_run:
        from curate.pipeline.trial import run
    else:
        from curate.pipeline.full import run
    run(config, source)


if __name__ == "__main__":
    cli.run(main, "curate", start_bare=False)
