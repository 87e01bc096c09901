"""A damaged file of a training is made again, to the same bytes, or named with what to do."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

import finetune.loop
from curate.run import checksums
from curate.run.schema import UserError
from curate.verify import stage_problems
from finetune import checkpoint
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


def truncate(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-5])


def remove(path):
    path.unlink()


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("weights.safetensors", truncate),
        ("ema.safetensors", remove),
        ("state.safetensors", flip),
        ("state.json", remove),
        ("checksums.json", remove),
    ],
)
def test_training_goes_on_from_the_checkpoint_before_and_the_damaged_one_stays_until_it_is_made_again(
    make_config, run_training, capsys, monkeypatch, name, damage
):
    config = make_config(**{"heldout.every": 8})
    run_training(config)
    before, curve = digests(config), losses(config)
    last = config.folder / LAST
    damage(last / name)
    left = {path.name: path.read_bytes() for path in last.iterdir()}
    aside = last.with_name("damaged-step-00000008")
    real_update, real_save, seen = finetune.loop.update, checkpoint.save, []

    def update(run, batch):
        steps = HeldoutCurve.load(config.folder / "heldout.npz").steps
        seen.append((run.progress.step, max(steps), max(r["step"] for r in losses(config))))
        assert list_checkpoints(config.folder)[-1].step == 4
        return real_update(run, batch)

    def save(*arguments):
        assert {path.name: path.read_bytes() for path in aside.iterdir()} == left
        found = real_save(*arguments)
        assert aside.exists()
        return found

    monkeypatch.setattr(finetune.loop, "update", update)
    monkeypatch.setattr(checkpoint, "save", save)
    capsys.readouterr()
    run_training(config)
    out = capsys.readouterr().out
    assert f"{last} is damaged ({name}: " in out
    assert "training goes on from step-00000004" in out
    assert seen == [(4, 4, 4), (5, 4, 5), (6, 6, 6), (7, 6, 7)]  # the records are cut back
    assert not aside.exists()
    assert digests(config) == before
    assert losses(config) == curve
    assert checksums.damaged(config.folder) == []


def test_killed_before_the_damaged_one_is_made_again_it_is_still_there(
    trained, run_training, monkeypatch
):
    before = digests(trained)
    flip(trained.folder / LAST / "state.safetensors")
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(finetune.loop, "update", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run_training(trained)
        folder = trained.folder / "checkpoints"
        assert (folder / "damaged-step-00000008" / "weights.safetensors").exists()
        assert (folder / "last").readlink().name == "step-00000004"
    run_training(trained)
    assert digests(trained) == before


def test_without_a_sound_checkpoint_training_says_what_to_type_and_touches_nothing(
    trained, run_training
):
    before = digests(trained)
    folder = trained.folder / "checkpoints"
    flip(folder / "step-00000004" / "weights.safetensors")
    truncate(folder / "step-00000008" / "state.safetensors")
    damaged = digests(trained)
    with pytest.raises(UserError) as refused:
        run_training(trained)
    said = str(refused.value)
    assert re.search(r"step-00000008: state.safetensors: \d+ bytes, and checksums.json says", said)
    assert "step-00000004: weights.safetensors: damaged: its sha256 is another" in said
    assert digests(trained) == damaged
    command = said.rpartition("type first: ")[2]
    subprocess.run(shlex.split(command), check=True)
    run_training(trained)
    assert digests(trained) == before


def test_where_the_one_before_has_no_optimizer_left_training_says_so(make_config, run_training):
    config = make_config(**{"checkpoint.keep": 1})
    run_training(config)
    flip(config.folder / LAST / "weights.safetensors")
    with pytest.raises(
        UserError, match=r"step-00000004: without state\.safetensors, which checkpoint\.keep"
    ):
        run_training(config)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("damage", [truncate, remove])
@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors"])
def test_a_damaged_checkpoint_of_an_earlier_release_is_found(trained, run_training, name, damage):
    before = digests(trained)
    as_earlier(trained.folder / LAST)
    damage(trained.folder / LAST / name)
    run_training(trained)
    assert digests(trained) == before


def as_earlier(folder):
    """As a release wrote a checkpoint that knew no checksums."""
    (folder / "checksums.json").unlink()
    state = json.loads((folder / "state.json").read_bytes())
    state.pop("checksum")
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.quick_cases(3)
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
        with pytest.raises(UserError, match=r"checksums\.json is damaged"):
            stored.weights()
        (stored.path / "checksums.json").touch()
        as_earlier(stored.path)
        assert stored.weights()


@pytest.mark.slow
def test_a_full_training_keeps_two_optimizers_and_all_weights(make_config, run_training):
    for name, method, setting, kept in (
        ("full", "full", {}, 2),
        ("all", "full", {"checkpoint.keep": None}, 4),
        ("lora", "lora", {}, 4),
        ("one", "lora", {"checkpoint.keep": 1}, 1),
    ):
        longer = {"train.samples": 64, "heldout.patience": None}
        config = make_config(name, method=method, **longer, **setting)
        run_training(config)
        stored = list_checkpoints(config.folder)
        assert [c.step for c in stored] == [4, 8, 12, 16]
        assert all(c.weights() for c in stored)
        states = [(c.path / "state.safetensors").exists() for c in stored]
        assert states == [False] * (4 - kept) + [True] * kept
        assert checksums.damaged(config.folder) == []
    config.checkpoint.keep = None
    run_training(config)  # what is gone stays gone, and nothing is made again
    assert sum((c.path / "state.safetensors").exists() for c in stored) == 1


def test_another_keep_takes_effect_at_the_next_start(make_config, run_training, capsys):
    config = make_config(**{"train.samples": 64, "heldout.items": 0, "checkpoint.keep": None})
    run_training(config)
    config.checkpoint.keep = 1
    capsys.readouterr()
    run_training(config)
    assert "is complete" in capsys.readouterr().out
    stored = list_checkpoints(config.folder)
    assert [(c.path / "weights.safetensors").exists() for c in stored] == [False] * 3 + [True]
    assert checksums.damaged(config.folder) == []
    assert list(stage_problems(config.folder)) == []
