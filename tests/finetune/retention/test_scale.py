"""The export at a share of the update: chosen by a stated rule, in every file, judged as it is exported."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from curate.run.files import sha256_of
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor
from finetune.checkpoint import list_checkpoints, weights_sha256
from finetune.config import TrainConfig
from finetune.config.retention import ExportConfig
from finetune.curve import HeldoutCurve
from finetune.export import export_checkpoint, values_of
from finetune.heldout import HeldoutGrid, grid_losses, relative
from finetune.methods import prepare
from finetune.methods.adapters import kohya
from finetune.models import load_model
from finetune.opened_run import load_run
from finetune.retention import scale
from finetune.retention.scale import Choice, Measured

INPUTS = (torch.randn(1, 4, 4, 4), torch.tensor([500]), torch.randn(1, 8, 16))


@torch.no_grad()
def output(unet) -> torch.Tensor:
    return unet.eval()(*INPUTS).sample


def interrupted(*_) -> None:
    raise InterruptedError


def row(value: float, gain: float, cost: float, width: float = 0.01) -> Measured:
    return Measured(value, (gain, gain - width, gain + width), (cost, cost - width, cost + width))


TABLE = [row(0.25, -0.1, 0.02), row(0.5, -0.2, 0.08), row(0.75, -0.25, 0.2), row(1.0, -0.27, 0.4)]


@pytest.mark.parametrize(
    ("forgotten", "expected"), [(0.1, 0.5), (0.085, 0.25), (0.22, 0.75), (0.5, 1.0), (0.001, 0.25)]
)
def test_the_largest_that_costs_little_is_chosen_by_the_ends_of_intervals(forgotten, expected):
    found, rule = scale.choose(TABLE, forgotten)
    assert found == expected
    assert f"at most {100 * forgotten:g} %" in rule
    assert rule.startswith("none is") == (forgotten == 0.001)


@pytest.mark.parametrize(
    ("gains", "forgotten", "expected", "says"),
    [
        ((0.1, 0.0, -0.1, -0.2), 0.22, 0.75, "the largest at which"),
        ((0.1, 0.0, -0.1, -0.2), 0.1, 0.75, "none is .* so the smallest of those at which it fell"),
        ((0.1, 0.05, 0.02, 0.0), 0.5, 1.0, "none is .* so the largest, since at no scale"),
        ((0.1, 0.05, 0.02, -0.005), 0.5, 1.0, "none is .* so the largest, since at no scale"),
    ],
)
def test_one_that_loses_what_the_training_started_with_is_not_chosen(
    gains, forgotten, expected, says
):
    table = [
        replace(each, start=(gain, gain - 0.01, gain + 0.01))
        for each, gain in zip(TABLE, gains, strict=True)
    ]
    found, rule = scale.choose(table, forgotten)
    assert found == expected
    assert re.match(says, rule)
    assert "against the base and against what the training started with" in rule


@pytest.mark.slow
def test_what_training_started_with_is_measured_as_well(
    make_config, run_training, tmp_path, capsys
):
    """A training that hardly moves is its start at scale 1, and less than that at a half."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nred dog\n")
    run_training(make_config("first", **{"optim.lr": 0.05}))
    begun = {"data.run": "first", "method.init": "first", "optim.lr": 1e-9}
    chosen = {"export.scale": [0.5, 1], "export.prompts": str(prompts), "export.pictures": 2}
    run_training(config := make_config("second", **begun, **chosen, **{"export.forgotten": 9.0}))
    found = scale.chosen(config.folder)
    assert found is not None
    half, whole = found.table
    assert half.start is not None
    assert whole.start is not None
    assert whole.start == pytest.approx((0, 0, 0), abs=1e-5)
    assert half.start[0] == pytest.approx(half.heldout[0] - whole.heldout[0], abs=1e-5)
    assert abs(half.start[0]) > 1e-4
    assert (found.scale, found.rule) == scale.choose(found.table, 9.0)
    assert [len(each) for each in scale.as_rows(found)] == [4, 4]

    said = "of all that differs from the base, and so of this start as well"
    assert said not in capsys.readouterr().out
    run_training(make_config("third", **begun, **{"export.scale": 0.5}))
    assert f"export.scale=0.5 exports that share {said}" in capsys.readouterr().out


def test_one_that_gains_nothing_is_not_chosen():
    table = [row(0.5, -0.2, 0.05), row(1.0, -0.005, 0.05)]
    assert scale.choose(table, 0.1)[0] == 0.5


def test_what_was_chosen_counts_for_what_is_asked_and_for_the_best_checkpoint_of_now(tmp_path):
    """Not after a training has gone on, nor where it was begun again with another scale."""
    files = {name: tmp_path / name for name in ("measured", "later")}
    for name, path in files.items():
        path.write_text(name)
    digest = sha256_of(files["measured"])
    known = Choice(0.5, "auto", 0.15, "prompts", "the largest", digest, tuple(TABLE))
    scale.note(tmp_path, known)

    def found(best="measured", **export):
        stored: Any = SimpleNamespace(weights_path=lambda: files[best])
        return scale.of_run(tmp_path, ExportConfig(**export), stored)

    assert found(scale="auto") == known
    assert found("later", scale="auto") is None
    assert found(scale=[0.5, 1]) is None
    assert found(scale="auto", forgotten=0.2) is None
    assert found(scale=1) is None
    for best in files:
        given = found(best, scale=0.25)
        assert given is not None
        assert (given.scale, given.table) == (0.25, ())


@pytest.mark.parametrize("method", ["full", pytest.param("dora", marks=pytest.mark.slow)])
def test_the_export_is_between_base_and_training_and_is_what_is_judged(
    make_config, run_training, method, capsys, monkeypatch
):
    changes = {"method": method, "optim.lr": 0.02}
    config = make_config(**changes, **{"export.scale": 0.5})
    run_training(config)
    said = capsys.readouterr().out
    assert "scale   0.5 of what was trained (export.scale)" in said
    run = load_run(config.run.folder)
    stored = run.exported()
    unet = config.method.load(config.model, config.folder / "export").unet
    assert torch.allclose(output(run.unet_at(stored)), output(unet), atol=1e-5)

    # by hand: the mean of what base and training make of each weight, in one layer
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    base = load_model(config.model).unet
    trained = load_model(config.model).unet
    prepare(trained, config.method, config.train.seed)
    for key, weight in config.method.trainable(trained).items():
        weight.data.copy_(stored.weights()[key])
    x = torch.randn(3, 16)
    with torch.no_grad():
        ends = [network.get_submodule(name)(x) for network in (base, trained)]
        assert (ends[0] - ends[1]).abs().max() > 1e-3
        between = unet.get_submodule(name)(x)
    torch.testing.assert_close(between, (ends[0] + ends[1]) / 2, atol=1e-5, rtol=1e-4)
    assert "at 0.5" in weights_sha256(stored)

    run_training(config)
    assert "is complete" in capsys.readouterr().out
    target, _ = export_checkpoint(load_run(config.run.folder), run.checkpoints()[0])
    first = config.method.load(config.model, target).unet
    assert torch.allclose(output(run.unet_at(run.checkpoints()[0])), output(first), atol=1e-5)

    # Another scale exports again, and trains nothing again.
    before = (config.folder / "metrics.jsonl").read_bytes()
    config.export = ExportConfig()
    with monkeypatch.context() as patch:
        patch.setattr("finetune.run._export_best", interrupted)
        with pytest.raises(InterruptedError):
            run_training(config)
    assert scale.chosen(config.folder) is not None
    assert {each.scale for each in load_run(config.run.folder).checkpoints()} == {1.0}
    run_training(config)
    assert "scale   " not in capsys.readouterr().out
    assert (config.folder / "metrics.jsonl").read_bytes() == before
    assert not (config.folder / scale.FILE).exists()
    whole = config.method.load(config.model, config.folder / "export").unet
    with torch.no_grad():
        torch.testing.assert_close(whole.get_submodule(name)(x), ends[1], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_several_scales_are_measured_once_and_one_is_chosen(
    make_config, run_training, tmp_path, capsys
):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nred dog\n\nblue dot\n")
    chosen = {"export.scale": [1, 0.5], "export.prompts": str(prompts), "export.pictures": 4}
    config = make_config(method="lora", **{"optim.lr": 0.05, **chosen, "export.forgotten": 1e-6})
    run_training(config)
    said = capsys.readouterr()
    found = scale.chosen(config.folder)
    assert found is not None
    assert [each.scale for each in found.table] == [0.5, 1.0]
    assert (found.scale, found.rule) == scale.choose(found.table, 1e-6)
    assert f"scale   {found.scale:g} of what was trained: held-out loss " in said.out
    none = found.rule.startswith("none")
    assert ("warning: no scale of export.scale=[0.5, 1.0]" in said.err) == none
    assert len(list((config.folder / scale.PICTURES).glob("*.png"))) == 4

    run = load_run(config.run.folder)  # the held-out part of a row, measured apart
    items = run.items("val", 4)
    grid = HeldoutGrid(3, 1, 0)
    model = run.model()
    base = grid_losses(model, load_model(config.model).unet, items, grid, 8)
    for measured in found.table:
        prepare(unet := load_model(config.model).unet, config.method, 0)
        stored = list_checkpoints(config.folder)
        best = next(each for each in stored if each.step == run.exported().step)
        for key, weight in config.method.trainable(unet).items():
            weight.data.copy_(best.weights()[key])
        config.method.rescale(unet, measured.scale)
        losses = grid_losses(model, unet, items, grid, 8)
        change = relative(losses, base, items.groups) - relative(base, base, items.groups)
        assert measured.heldout[0] == pytest.approx(change.mean(), abs=1e-5)
    for file in (
        kohya.path(config.folder / "export", "tiny"),
        *config.method.files(config.folder / "export"),
    ):
        with safe_open(file, "pt") as content:
            names = list(content.keys())
            up = [n for n in names if "lora_up" in n or "lora_B" in n]
            name = next(n for n in up if "mid_block" in n and "attn1_to_q" in n.replace(".", "_"))
            (own,) = (
                value
                for key, value in run.exported().weights().items()
                if "mid_block" in key and "attn1.to_q" in key and "lora_B" in key
            )
            torch.testing.assert_close(content.get_tensor(name), own * found.scale)

    (config.folder / "export" / "checkpoint.json").unlink()  # killed before it was there
    (config.folder / scale.PICTURES / "latents.npz").unlink()
    run_training(config)
    assert not (config.folder / scale.PICTURES / "latents.npz").exists(), (
        "it was not measured again"
    )
    noted = json.loads((config.folder / "export" / "checkpoint.json").read_text())
    assert noted.get("scale", 1.0) == found.scale

    (config.folder / scale.FILE).write_text("{}")
    with pytest.raises(UserError, match=r"scale\.json is damaged.*type the training command again"):
        load_run(config.run.folder).checkpoints()
    run_training(config)
    assert scale.chosen(config.folder) == found
    config.export = ExportConfig(scale=[0.5, 1], prompts=str(prompts), pictures=4, forgotten=9.0)
    run_training(config)
    again = scale.chosen(config.folder)
    assert again is not None
    assert (again.scale, again.rule[:3]) == (
        scale.choose(again.table, 9.0)[0],
        found.rule[:3] if again.rule[:3] == "non" else "the",
    )


@pytest.mark.slow
def test_scales_are_measured_in_the_precision_of_the_held_out_losses(make_config, run_training):
    """One noise of each level, as for scales: the row of 1 is then what the curve says of the best checkpoint."""
    chosen = {"export.scale": [1], "export.pictures": 2, "heldout.draws": scale.DRAWS}
    config = make_config(
        method="lora", **{"optim.lr": 0.05, "optim.mixed_precision": "bf16", **chosen}
    )
    run_training(config)
    choice = scale.chosen(config.folder)
    assert choice is not None
    run = load_run(config.run.folder)
    curve = HeldoutCurve.load(config.folder / "heldout.npz")
    at = curve.steps.index(run.exported().step)
    assert {curve.precisions[0], curve.precisions[at]} == {"bf16"}
    items = run.items("val", 4)
    assert choice.table[0].heldout == scale.change(curve.val[at], curve.val[0], items.groups)

    model = run.model()
    losses = grid_losses(model, run.unet_at(run.exported()), items, HeldoutGrid(3, scale.DRAWS), 8)
    assert abs(losses - curve.val[at]).max() > 1e-6, "in fp32 they are others"


def test_settings_that_mean_nothing_are_refused(make_config, tmp_path):
    for value in (0, 1.5, -1, "large", [], [0.5, 2], True, None):
        with pytest.raises(UserError, match=r"export\.scale"):
            ExportConfig(scale=value)
    unread: list[tuple[str, Any]] = [("forgotten", 0.2), ("pictures", 8), ("prompts", "x.txt")]
    for name, value in unread:
        with pytest.raises(UserError, match=rf"export\.{name}=.* has no effect with export\.scale"):
            ExportConfig(scale=0.5, **{name: value})
    with pytest.raises(UserError, match=r"heldout\.items=0 measures none; type export\.scale=0\.5"):
        make_config(**{"heldout.items": 0, "export.scale": "auto"})
    config: TrainConfig = make_config(**{"export.scale": "auto", "export.prompts": "nowhere.txt"})
    with pytest.raises(UserError, match=r"export\.prompts=nowhere\.txt is not there"):
        doctor.examine(config, read_manifest(config.curate_dir))


def test_values_at_no_share_are_those_of_the_base(make_config, run_training):
    config = make_config(method="full", **{"optim.lr": 0.02})
    run_training(config)
    model = load_model(config.model)
    own = {name: weight.clone() for name, weight in model.unet.named_parameters()}
    prepare(model.unet, config.method, 0)
    stored = list_checkpoints(config.folder)[-1]
    found = config.method.scaled(model.unet, stored.weights(), 0.0, lambda: own)
    assert all(torch.equal(found[name], own[name]) for name in found)
    assert values_of(config, model, stored).keys() == found.keys()
