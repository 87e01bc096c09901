"""A damaged file of a training is made again, to the same bytes, or named with what to do."""

from __future__ import annotations

import pytest

from curate.run import checksums
from curate.run.schema import UserError
from finetune.checkpoint import list_checkpoints
from finetune.curve import HeldoutCurve
from finetune.opened_run import load_run
from tests.finetune.conftest import digests, losses


def flip(path, place=-20):
    """Another file with one other bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.fixture
def trained(make_config, run_training):
    config = make_config(method="lora")
    run_training(config)
    assert checksums.damaged(config.folder) == []
    return config


LAST = "checkpoints/step-00000008"


@pytest.mark.parametrize(
    "name",
    [
        f"{LAST}/weights.safetensors",
        f"{LAST}/ema.safetensors",
        f"{LAST}/state.safetensors",
        f"{LAST}/state.json",
        f"{LAST}/checksums.json",
        "export/pytorch_lora_weights.safetensors",
        "heldout.npz",
        "config.yaml",
    ],
)
def test_the_same_command_makes_it_again(trained, run_training, capsys, name):
    before, config_bytes = digests(trained), (trained.folder / "config.yaml").read_bytes()
    capsys.readouterr()
    flip(trained.folder / name)
    run_training(trained)
    out = capsys.readouterr().out
    assert "damaged" in out
    assert name.rpartition("/")[2] in out
    assert digests(trained) == before
    assert (trained.folder / "config.yaml").read_bytes() == config_bytes
    assert checksums.damaged(trained.folder) == []
    run_training(trained)
    assert "is complete" in capsys.readouterr().out


def test_a_cut_run_with_damaged_losses_measures_them_again(make_config, run_training, capsys):
    config = make_config("cut")
    run_training(config)
    whole = digests(config)
    for path in (config.folder / LAST, config.folder / "export"):
        path.rename(config.folder.parent / path.name)
    flip(config.folder / "heldout.npz", 200)
    run_training(config)
    assert "measured again: the base and 1 checkpoints" in capsys.readouterr().out
    assert digests(config) == whole


def test_losses_of_other_pictures_than_those_chosen_now_are_measured_again(
    make_config, run_training, capsys
):
    config = make_config("cut")
    run_training(config)
    whole = digests(config)
    for path in (config.folder / LAST, config.folder / "export"):
        path.rename(config.folder.parent / path.name)
    curve = HeldoutCurve.load(config.folder / "heldout.npz")
    curve.val_keys = curve.val_keys[::-1]
    curve.save(config.folder / "heldout.npz")
    run_training(config)
    assert "is of other pictures, which an earlier version chose" in capsys.readouterr().out
    assert digests(config) == whole


def test_an_earlier_checkpoint_is_refused_by_its_reader(trained, run_training, capsys):
    first, _ = list_checkpoints(trained.folder)
    flip(first.path / "ema.safetensors")
    run_training(trained)  # does not read it
    with pytest.raises(
        UserError, match=rf"ema.safetensors is damaged.*delete the folder {first.path}"
    ):
        first.weights()
    (first.path / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"ema\.safetensors is damaged"):  # not the plain weights
        first.weights()
    assert first.weights(ema=False)
    flip(first.path / "state.json")
    with pytest.raises(UserError, match="delete the folder"):
        list_checkpoints(trained.folder)


def test_what_was_told_to_be_deleted_is_no_longer_listed(trained, run_training):
    first, _ = list_checkpoints(trained.folder)
    for path in first.path.iterdir():
        path.unlink()
    first.path.rmdir()
    assert checksums.damaged(trained.folder)
    run_training(trained)
    assert checksums.damaged(trained.folder) == []


def test_damage_to_what_training_does_not_write_is_not_listed_as_right(
    trained, run_training, make_config
):
    export = trained.folder / "export-step-00000004" / "pytorch_lora_weights.safetensors"
    with checksums.updated(trained.folder, ("export-step-",)):
        export.parent.mkdir()
        export.write_bytes(b"another checkpoint, as python -m finetune.export writes it")
    flip(export)
    flip(trained.folder / "export" / export.name)
    run_training(trained)
    run_training(make_config(method="lora", **{"train.samples": 48}))
    assert checksums.damaged(trained.folder) == [export.relative_to(trained.folder).as_posix()]


def test_lines_of_the_log_that_are_damaged_are_left_out(trained, run_training, capsys):
    path = trained.folder / "metrics.jsonl"
    lines = len(losses(trained))
    flip(path, 0)
    run_training(trained)
    assert (
        "metrics.jsonl is damaged: it is kept as far as it can be read" in capsys.readouterr().out
    )
    assert len(losses(trained)) == lines - 1
    assert checksums.damaged(trained.folder) == []


def test_an_edited_configuration_is_not_judged_by(trained):
    path = trained.folder / "config.yaml"
    path.write_text(path.read_text().replace("resolution: 16", "resolution: 32"))
    with pytest.raises(UserError, match="was edited; train with the same command"):
        load_run(trained.run.folder)


def test_checkpoints_of_an_earlier_release_are_read(trained):
    for stored in list_checkpoints(trained.folder):
        (stored.path / "checksums.json").unlink()
        assert stored.weights()
