"""What is refused before any model is loaded."""

from __future__ import annotations

import pandas as pd
import pytest

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor


def examine(config):
    doctor.examine(config, read_manifest(config.run.folder / "curate"))


def test_a_sound_run_passes(make_config):
    examine(make_config())


@pytest.mark.parametrize("column", ["key", "sha256", "duplicate_group"])
def test_a_held_out_picture_that_is_trained_on_is_refused(make_config, column):
    config = make_config()
    shards = config.run.folder / "curate" / "shards"
    train = pd.read_parquet(shards / "train" / "000000.parquet")
    path = shards / "val" / "000000.parquet"
    val = pd.read_parquet(path)
    val.loc[2, column] = train.loc[0, column]
    val.to_parquet(path)
    with pytest.raises(UserError, match=f"1 of the val samples.*{column} {train.loc[0, column]}"):
        examine(config)


def test_nothing_held_out_must_be_asked_for(make_config):
    config = make_config(val=0)
    with pytest.raises(UserError, match=r"heldout\.items=0"):
        examine(config)
    config.heldout.items = 0
    examine(config)


def test_a_run_does_not_go_on_with_another_configuration(make_config, run_training):
    run_training(make_config())
    with pytest.raises(
        UserError, match=r"started with optim\.lr=0\.001, not 0\.002\. .*another run\.name$"
    ):
        examine(make_config(**{"optim.lr": 0.002}))
    with pytest.raises(UserError, match=r"method\.name=full, not lora"):
        examine(make_config(method="lora"))
    examine(make_config(**{"heldout.every": 8, "optim.gradient_accumulation": 2}))


def test_the_length_is_free_only_where_the_rate_does_not_depend_on_it(make_config):
    manifest = read_manifest(make_config().run.folder / "curate")
    identities = {
        schedule: [
            doctor.identity(
                make_config(**{"train.samples": n, "optim.schedule": schedule}), manifest
            )
            for n in (32, 64)
        ]
        for schedule in ("constant", "cosine")
    }
    assert identities["constant"][0] == identities["constant"][1]
    assert identities["cosine"][0] != identities["cosine"][1]
