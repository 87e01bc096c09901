"""The command ``python -m curate``: check the configuration and the input, then run the pipeline."""

from __future__ import annotations

import os

import hydra
from omegaconf import DictConfig

from curate.pipeline.config import CurateConfig
from curate.run import cli
from curate.run.schema import to_dataclass


@hydra.main(version_base="1.3", config_path="../conf", config_name="curate")
@cli.polite
def main(cfg: DictConfig) -> None:
    """Everything that can be wrong with the request is said before anything heavy is imported.

    Under a launcher of several processes the first does the work and the others return.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return
    config = to_dataclass(cfg, CurateConfig)
    from curate.pipeline import fetching, request
    from curate.run.finished import refuse_finished

    if not config.dry_run:
        refuse_finished(config.run.folder)
    source = request.examine(config)
    with fetching.reading(config.dataset):
        if config.dry_run:
            from curate.pipeline.trial import run
        else:
            from curate.pipeline.full import run
        run(config, source)


if __name__ == "__main__":
    cli.run(main, "curate", start_bare=False)
