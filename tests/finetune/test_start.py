"""Trainings that start with an export: the same network, the base as the measure, refusals, exact resuming."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import finetune.run
from curate.run import parquet
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor, start
from finetune.checkpoint import list_checkpoints
from finetune.curve import HeldoutCurve
from finetune.heldout import HeldoutGrid, grid_losses
from finetune.opened_run import load_run
from tests.finetune.conftest import curate, digests, losses

LORA = {"method.rank": 4, "method.alpha": 2.0}  # a scale of a half
INPUTS = {"sample": torch.ones(1, 4, 4, 4), "timestep": torch.tensor([300])}


@torch.no_grad()
def output(unet, conditioning):
    return unet(**INPUTS, encoder_hidden_states=conditioning["hidden"]).sample


def settings(method: str) -> dict:
    return {"method": method, **(LORA if method == "lora" else {})}


def plain_diffusers(config, folder):
    """The U-Net that a user of diffusers gets from an export."""
    if config.method.name == "full":
        return StableDiffusionPipeline.from_pretrained(folder).unet
    pipe = StableDiffusionPipeline.from_pretrained(config.model.path)
    pipe.load_lora_weights(str(folder))
    return pipe.unet


@pytest.fixture
def started(make_config, run_training):
    """A first training that moved far, and one that starts with its export and hardly moves."""

    def make(method: str = "lora", **changes):
        lr = 0.05 if method == "lora" else 0.003
        first = make_config("first", **settings(method), **{"optim.lr": lr})
        run_training(first)
        config = make_config(
            "second",
            **settings(method),
            **{"data.run": "first", "method.init": "first", "optim.lr": 1e-9, **changes},
        )
        return first, config

    return make


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_the_export_computes_the_same_and_the_base_stays_the_measure(
    started, run_training, capsys, method
):
    first, config = started(method)
    run_training(config)
    export = first.folder / "export"
    assert f"start   {export}" in capsys.readouterr().out
    run = load_run(config.run.folder)
    text = run.model().encode_captions(["red bar"])
    base = output(run.unet_at(None), text)
    theirs = output(plain_diffusers(config, export), text)
    assert (theirs - base).abs().max() > 0.01
    assert torch.equal(output(run.unet_at(run.start()), text), theirs)
    for ema in (True, False):  # nothing of the base is in the average
        after = output(run.unet_at(run.checkpoints()[0], ema), text)
        torch.testing.assert_close(after, theirs, atol=1e-5, rtol=1e-4)

    curve = HeldoutCurve.load(config.folder / "heldout.npz")
    items, grid = run.items("val", 4), HeldoutGrid(bins=3, draws=2)
    for unet, measured in (
        (run.unet_at(None), curve.val[0]),
        (plain_diffusers(config, export), curve.start[0]),
        (plain_diffusers(config, export), curve.val[1]),
    ):
        again = grid_losses(run.model(), unet, items, grid, batch_size=8)
        np.testing.assert_allclose(again, measured, rtol=1e-4)
    assert abs(curve.start_heldout() - 1) > 0.001
    assert [line["heldout_relative"] for line in losses(config) if line["step"] == 0] == [
        1.0,
        pytest.approx(curve.start_heldout()),
    ]


def test_what_it_started_with_is_noted_for_the_lineage(started, run_training):
    first, config = started()
    run_training(config)
    file = first.folder / "export" / "pytorch_lora_weights.safetensors"
    noted = start.origin_of(config.folder)
    best = list_checkpoints(first.folder)[-1]
    assert noted["given"] == "first"
    assert noted["folder"] == str((first.folder / "export").resolve())
    assert noted["run"] == str(first.run.folder.resolve())
    assert noted["checkpoint"]["samples_seen"] in (16, best.samples_seen)
    identity = list_checkpoints(config.folder)[-1].state()["identity"]
    assert identity["init"] == noted["sha256"] == doctor.start._digest(config, file.parent)
    assert identity["weights"] == list_checkpoints(first.folder)[-1].state()["identity"]["weights"]
    assert start.origin_of(first.folder) is None
    assert list_checkpoints(first.folder)[-1].state()["identity"]["init"] is None


@pytest.mark.slow
def test_a_folder_names_an_export_too_and_is_not_needed_any_more_after_the_start(
    started, run_training, tmp_path
):
    first, config = started()
    copy = shutil.copytree(first.folder / "export", tmp_path / "elsewhere")
    config.method.init = str(copy)
    run_training(config)
    stored = digests(config)
    shutil.rmtree(copy)
    run_training(config)  # complete
    config.train.samples = 48
    run_training(config)
    assert len(list_checkpoints(config.folder)) == 3
    assert stored["start/weights.safetensors"] == digests(config)["start/weights.safetensors"]


# Refusals


@pytest.fixture
def export(tmp_path, make_config, run_training):
    """The configuration of a training, ``first``, that has an export."""
    first = make_config("first", **settings("lora"))
    run_training(first)
    return first


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method.rank": 8}, r"a LoRA of rank 4 and alpha 2, .* type method\.rank=4 method\.alpha=2$"),
        ({"method.alpha": 4.0}, r"type method\.rank=4 method\.alpha=2$"),
        ({"method.targets": ["to_q"]}, r"it has .*; type 'method\.targets=\[to_k,to_out\.0,to_q,to_v\]'"),
        ({"method.init": "firts"}, r"method\.init=firts is no export of method=lora: .* exports of first"),
        ({"method.init": ""}, r"method\.init= is no export"),
        ({"run.name": "first"}, r"method\.init=first is this run itself"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    make_config, export, monkeypatch, changes, says
):
    config = make_config(
        "second",
        **{**settings("lora"), "data.run": "first", "method.init": "first", **changes},
    )
    if config.run.name == "first":
        shutil.rmtree(config.folder / "checkpoints")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UserError, match=says):
        doctor.examine(config, read_manifest(config.curate_dir))


def test_another_method_is_refused(make_config, export):
    config = make_config("second", **{"data.run": "first", "method.init": "first"})
    with pytest.raises(
        UserError, match=r"export of method=lora, .* has method=full.*type method=lora"
    ):
        start.examine(config)


def test_a_damaged_export_is_refused(make_config, export):
    path = export.folder / "export" / "pytorch_lora_weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    config = make_config("second", **settings("lora"), **{"method.init": "first"})
    with pytest.raises(UserError, match=r"is damaged, not what training wrote; delete .*export"):
        start.examine(config)


def test_a_lora_that_does_not_say_its_alpha_is_refused(make_config, export, tmp_path):
    weights = load_file(export.folder / "export" / "pytorch_lora_weights.safetensors")
    (tmp_path / "foreign").mkdir()
    save_file(weights, tmp_path / "foreign" / "pytorch_lora_weights.safetensors")
    config = make_config("second", **settings("lora"), **{"method.init": str(tmp_path / "foreign")})
    with pytest.raises(UserError, match="does not say its rank and alpha"):
        start.examine(config)


def test_a_lora_of_another_u_net_is_refused(make_config, export, run_training, tmp_path):
    """One module less: by the header it would fit."""
    copy = shutil.copytree(export.folder / "export", tmp_path / "other")
    path = copy / "pytorch_lora_weights.safetensors"
    header = json.loads(path.read_bytes()[8:][: int.from_bytes(path.read_bytes()[:8], "little")])
    weights = dict(list(load_file(path).items())[2:])
    save_file(weights, path, metadata=header["__metadata__"])
    config = make_config("second", **settings("lora"), **{"method.init": str(copy)})
    with pytest.raises(UserError, match=r"does not fit the model: 2 weights are missing"):
        run_training(config)
    assert not (config.folder / "start").exists()


@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("unet/config.json", "attention_head_dim", 4, "attention_head_dim=4, and that of the base 2"),
        ("scheduler/scheduler_config.json", "prediction_type", "epsilon", "predicts epsilon, and the base v_pred"),
    ],
)  # fmt: skip
def test_a_pipeline_that_computes_something_else_is_refused(
    make_config, run_training, pipeline_dir, tmp_path, file, key, value, says
):
    """The weights would fit."""
    folder = shutil.copytree(pipeline_dir, tmp_path / "pipeline")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, key: value}))
    config = make_config("second", **{"method.init": str(folder)})
    with pytest.raises(UserError, match=says):
        run_training(config)


def test_a_run_is_not_resumed_with_another_start(started, run_training, make_config):
    _, config = started(**{"train.samples": 48})
    run_training(make_config("other", **settings("lora"), **{"data.run": "first"}))
    config.train.samples = 16
    run_training(config)
    config.train.samples = 48
    config.method.init = "other"
    with pytest.raises(UserError, match=r"started from other weights to start with .*digest"):
        run_training(config)
    config.method.init = None
    with pytest.raises(
        UserError, match=r"with weights that method\.init named, and it is not typed"
    ):
        run_training(config)
    config.method.init = "first"
    run_training(config)


def test_a_split_that_holds_out_what_the_start_was_trained_on_is_refused(
    make_config, run_training, tmp_path
):
    """Two trainings back, in curations of which each is sound by itself."""
    run_training(make_config("first", **settings("lora")))
    folder = tmp_path / "newer" / "curate"
    curate(folder, {"train": 6, "val": 12})  # the same pictures, of which others are held out
    run_training(
        make_config("second", **settings("lora"), **{"data.run": "first", "method.init": "first"})
    )
    config = make_config(
        "third", **settings("lora"), **{"data.run": "newer", "method.init": "second"}
    )
    says = r"6 of the 12 val samples of newer were trained on by second, which method\.init=second"
    with pytest.raises(UserError, match=says):
        run_training(config)
    (folder / "manifest.json").unlink()
    curate(folder, {"train": 12, "val": 6})
    run_training(config)


@pytest.mark.slow
def test_a_few_that_it_was_trained_on_are_not_measured_with_all_of_their_group(
    make_config, run_training, capsys, tmp_path
):
    """One that is train-012 of the first, and another one of its group."""
    run_training(make_config("first", train=13, **settings("lora")))
    folder = tmp_path / "newer" / "curate"
    curate(folder, {"train": 12, "val": 20})
    tables = (folder / "shards" / "val").glob("*.parquet")
    path = next(path for path in tables if "val-000" in set(pd.read_parquet(path)["key"]))
    rows = pd.read_parquet(path)
    row, other = rows.index[rows["key"] == "val-000"][0], rows.index[rows["key"] != "val-000"][0]
    rows.loc[other, "duplicate_group"] = rows.loc[row, "duplicate_group"]
    parquet.write_table(path, pa.Table.from_pandas(rows, preserve_index=False))
    left_out = ["val-000", rows.loc[other, "key"]]
    config = make_config(
        "second",
        **settings("lora"),
        **{"data.run": "newer", "method.init": "first", "heldout.items": 128},
    )
    run_training(config)
    assert "note: 2 held-out pictures, or near copies of them" in capsys.readouterr().out
    assert start.origin_of(config.folder)["seen"] == left_out
    measured = HeldoutCurve.load(config.folder / "heldout.npz").val_keys
    assert len(measured) == 18
    assert not set(measured) & set(left_out)
    run = load_run(config.run.folder)
    assert run.items("val", 128).keys == measured
    assert len(run.captions("val", 128)) == 18
    config.train.samples = 48
    run_training(config)  # which goes on with the same pictures
    assert HeldoutCurve.load(config.folder / "heldout.npz").val_keys == measured


def test_a_start_whose_training_pictures_are_not_known_is_named(started, run_training, capsys):
    first, config = started()
    shutil.copytree(first.folder / "export", first.run.folder / "copy")
    config.method.init = str(first.run.folder / "copy")
    run_training(config)
    assert "held out here is not known: not all trainings behind it" in capsys.readouterr().out


# Resuming


class Killed(BaseException):
    """Stands in for the power cut."""


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(3, marks=pytest.mark.slow),
        pytest.param(7, marks=pytest.mark.slow),
        pytest.param(9, marks=pytest.mark.slow),
        pytest.param(11, marks=pytest.mark.slow),
        pytest.param(14, marks=pytest.mark.slow),
        20,
        pytest.param(26, marks=pytest.mark.slow),
    ],
)
def test_a_run_cut_at_any_write_resumes_to_the_same_bytes(
    started, run_training, monkeypatch, tmp_path, cut
):
    _, config = started(**{"optim.lr": 0.01})
    run_training(config)
    whole = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    calls, real = 0, os.fsync

    def dying(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise Killed
        real(descriptor)

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(Killed):
        run_training(config)
    monkeypatch.setattr(os, "fsync", real)
    run_training(config)
    assert losses(config) == whole[0]
    assert digests(config) == whole[1]


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param("heldout.npz", marks=pytest.mark.slow),
        "start/weights.safetensors",
        pytest.param("start/state.json", marks=pytest.mark.slow),
    ],
)
def test_what_is_damaged_is_made_again(started, run_training, lost):
    _, config = started(**{"optim.lr": 0.01})
    run_training(config)
    whole = digests(config)
    content = bytearray((config.folder / lost).read_bytes())
    content[len(content) // 2] ^= 1
    (config.folder / lost).unlink()
    (config.folder / lost).write_bytes(content)
    run_training(config)
    assert digests(config) == whole


@pytest.mark.slow
def test_the_start_of_an_attempt_that_stored_nothing_does_not_stay(
    started, run_training, monkeypatch
):
    _, config = started()
    with monkeypatch.context() as patched:
        patched.setattr(finetune.run, "fit", lambda run: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run_training(config)
    assert (config.folder / "start").is_dir()
    config.method.init = None
    run_training(config)
    assert not (config.folder / "start").exists()
    assert HeldoutCurve.load(config.folder / "heldout.npz").start is None
