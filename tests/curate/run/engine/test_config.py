"""A setting of an engine that has no use for it is refused, and the answer says what to type."""

import pytest

from curate.run.engine.config import NAMES, EngineConfig
from curate.run.schema import UserError


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_and_what_all_engines_use_pass(name):
    EngineConfig(name=name)
    EngineConfig(name=name, memory="2GB", scratch="somewhere", threads=2)


@pytest.mark.parametrize(
    ("name", "settings", "typed"),
    [
        ("inprocess", {"workers": 8}, "engine=processes engine.workers=8, or engine=ray engine.workers=8"),
        ("inprocess", {"gpus_per_worker": 0.5}, "engine=ray engine.gpus_per_worker=0.5"),
        ("inprocess", {"address": "auto"}, "engine=ray engine.address=auto"),
        ("processes", {"gpus_per_worker": 1.0, "workers": 2}, "engine=ray engine.gpus_per_worker=1"),
        ("processes", {"address": "auto"}, "engine=ray engine.address=auto"),
    ],
)  # fmt: skip
def test_what_an_engine_would_ignore_is_refused(name, settings, typed):
    key = next(iter(settings))
    with pytest.raises(
        UserError, match=rf"engine\.{key}=.* does nothing with engine={name}; type"
    ) as said:
        EngineConfig(name=name, **settings)
    assert f"type {typed}, or leave engine.{key} out" in str(said.value)


def test_engines_that_use_a_setting_take_it():
    assert EngineConfig(name="processes", workers=8).workers == 8
    chosen = EngineConfig(name="ray", workers=8, gpus_per_worker=0.5, address="auto")
    assert (chosen.workers, chosen.gpus_per_worker, chosen.address) == (8, 0.5, "auto")


@pytest.mark.parametrize("gpus", [-1.0, 1.5])
def test_gpus_are_a_share_of_one_or_whole(gpus):
    with pytest.raises(UserError, match=r"accepted: a share from 0 to 1, or a whole number"):
        EngineConfig(name="ray", gpus_per_worker=gpus)
    EngineConfig(name="ray", gpus_per_worker=2.0)
