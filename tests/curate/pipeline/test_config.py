"""The configuration of a curation as a whole."""

import pytest

from curate.clip.config import ClipConfig
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run.engine.config import EngineConfig


@pytest.mark.parametrize(
    ("engine", "typed", "scores"),
    [
        (EngineConfig(), "auto", "auto"),
        (EngineConfig(name="processes"), "auto", "auto"),
        (EngineConfig(name="ray"), "auto", "cpu"),
        (EngineConfig(name="ray", gpus_per_worker=0.5), "auto", "cuda"),
        (EngineConfig(name="ray", gpus_per_worker=1), "cpu", "cpu"),
    ],
)
def test_actors_of_ray_score_where_they_have_a_gpu(engine, typed, scores):
    config = CurateConfig(
        clip=ClipConfig(name="x", device=typed),
        dataset=FolderConfig(name="x", reader="folder", root="x"),
        engine=engine,
    )
    assert config.scoring_clip.device == scores
    assert config.clip.device == typed
