"""What is refused before any model is loaded."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from curate.run.files import read_json, write_certified
from curate.run.manifest import read_manifest
from curate.run.removals import Removals, write_removals
from curate.run.schema import UserError
from finetune import doctor
from finetune.models import load_model


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
        UserError, match=r"started with optim\.lr=0\.001, not 0\.002\. .*another run\.name"
    ):
        examine(make_config(**{"optim.lr": 0.002}))
    with pytest.raises(UserError, match=r"method\.name=full, not lora"):
        examine(make_config(method="lora"))
    examine(make_config(**{"heldout.every": 8, "optim.gradient_accumulation": 2}))


def test_a_key_that_was_not_noted_had_its_default(make_config, run_training, deep_dir):
    """So a training of an earlier version goes on, and one with another value does not, in either direction."""
    deep = {"model.path": str(deep_dir)}
    run_training(config := make_config(**deep))
    for path in config.folder.glob("checkpoints/step-*/state.json"):
        state = read_json(path)
        assert "model.clip_skip" in state["identity"]
        for key in doctor._FORMERLY:
            if not key.startswith("optim."):  # of which these tests have their own
                state["identity"].pop(key, None)
        write_certified(path, state)
    examine(make_config(**deep))
    with pytest.raises(UserError, match=r"with model\.clip_skip=1, not 2\."):
        examine(make_config(**deep, **{"model.clip_skip": 2}))
    run_training(make_config("skipping", **deep, **{"model.clip_skip": 2}))
    with pytest.raises(UserError, match=r"with model\.clip_skip=2, not 1\."):
        examine(make_config("skipping", **deep))


def test_zero_terminal_snr_needs_a_model_that_does_not_predict_epsilon(make_config, tmp_path):
    zero = {"objective.zero_terminal_snr": True}
    examine(make_config(**zero))
    says = r"objective\.zero_terminal_snr=true needs .* v_prediction or sample, .* predicts epsilon"
    with pytest.raises(UserError, match=says):
        examine(make_config(**zero, **{"model.prediction_type": "epsilon"}))
    shutil.copytree(make_config().model.path, tmp_path / "eps")
    path = tmp_path / "eps" / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    config = make_config(**zero, **{"model.path": str(tmp_path / "eps")})
    for look in (examine, doctor.examine_settings):
        with pytest.raises(UserError, match=says):
            look(config)
    with pytest.raises(UserError, match=says):
        load_model(config.model, zero_terminal_snr=True)
    config.model.prediction_type = "v_prediction"
    examine(config)


def test_a_training_of_samples_in_another_order_does_not_go_on(make_config, run_training, capsys):
    run_training(config := make_config())
    for path in config.folder.glob("checkpoints/step-*/state.json"):
        state = read_json(path)
        state["identity"].pop("order", None)  # as earlier versions wrote it
        write_certified(path, state)
    run_training(config)
    assert "is complete" in capsys.readouterr().out
    longer = make_config(**{"train.samples": 64})
    with pytest.raises(
        UserError, match=r"samples in another order.*type run\.name=NEW data\.run=tiny$"
    ):
        run_training(longer)
    doctor.refuse_change(config.folder, state["identity"], {"shards": state["identity"]["shards"]})


def test_other_shards_under_a_training_on_another_runs_curation(make_config, run_training):
    make_config("curated")
    run_training(config := make_config(**{"data.run": "curated"}))
    path = config.curate_dir / "manifest.json"
    manifest = read_json(path)
    manifest["shards"][0]["sha256"] = "0" * 64
    write_certified(path, manifest)
    with pytest.raises(
        UserError, match=r"other curated data.*type run\.name=NEW data\.run=curated$"
    ):
        doctor.examine(config, read_manifest(config.curate_dir))


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


def test_after_a_removal_nobody_is_sent_to_restore_the_shards(make_config, run_training):
    run_training(config := make_config())
    path = config.curate_dir / "manifest.json"
    manifest = read_json(path)
    manifest["shards"][0]["sha256"] = "0" * 64
    write_certified(path, manifest)
    write_removals(config.curate_dir, Removals(frozenset({"k1"}), records=({"by": "keys"},)))
    with pytest.raises(UserError, match=r"taken out of the shards for good.*run\.name=NEW") as said:
        doctor.examine(config, read_manifest(config.curate_dir))
    assert "curate again" not in str(said.value)
