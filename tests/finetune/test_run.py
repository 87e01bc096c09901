"""Whole runs of a tiny model: what they leave, when they stop, on one process and two."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_snr

from curate.run.files import write_certified
from curate.run.finished import RECORD
from curate.run.schema import UserError
from finetune.checkpoint import best_of, list_checkpoints
from finetune.heldout import relative
from finetune.loop import NonFiniteLoss
from finetune.opened_run import load_run
from tests.finetune.conftest import command, digests, losses, start

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_leaves_what_the_design_says(make_config, run_training, capsys, method):
    config = make_config(method=method)
    run_training(config)
    names = {path.name for path in config.folder.iterdir()}
    assert names == {
        "captions.json",
        "checkpoints",
        "checksums.json",
        "config.yaml",
        "encoding.json",
        "export",
        "heldout.npz",
        "metrics.jsonl",
        "trained_on.parquet",
    }
    assert not list(config.folder.rglob("*.part"))
    stored = list_checkpoints(config.folder)
    assert [(c.step, c.samples_seen) for c in stored] == [(4, 16), (8, 32)]
    links = config.folder / "checkpoints"
    assert (links / "last").readlink() == Path("step-00000008")
    assert (links / "best").readlink() == Path(best_of(stored).path.name)
    trained = [r for r in losses(config) if "loss" in r]
    measured = [r for r in losses(config) if "heldout" in r]
    assert [r["samples_seen"] for r in trained] == list(range(4, 33, 4))
    assert [r["samples_seen"] for r in measured] == [0, 16, 32]
    assert measured[0]["heldout"] == measured[0]["heldout_base"]
    assert stored[1].heldout == measured[2]["heldout_relative"]
    with np.load(config.folder / "heldout.npz") as curve:
        assert curve["val"].shape == curve["probe"].shape == (3, 4, 3, 2)
    out = capsys.readouterr().out
    assert "largest difference" in out
    assert f"\nbest    {best_of(stored).path.name} of step-00000008 " in out
    assert "python -m evaluate run.name=tiny" in out

    before = digests(config)
    run_training(config)
    assert "is complete" in capsys.readouterr().out
    assert digests(config) == before

    (config.run.folder / RECORD).write_text("{}")  # a retraining judges it itself
    shutil.rmtree(config.folder / "export")
    run_training(config)
    out = capsys.readouterr().out
    assert "\nexport  " in out
    assert "python -m evaluate" not in out


def test_a_run_says_what_it_will_do_and_what_came_of_it(make_config, run_training, capsys):
    """Weights counted in the files of the exported and the base U-Net, the interval from heldout.npz."""
    from safetensors.torch import load_file
    from scipy.stats import ttest_1samp

    changes = {"method.rank": 2, "optim.gradient_accumulation": 2, "ema.decay": None}
    config = make_config(method="lora", **changes)
    run_training(config)
    best = best_of(list_checkpoints(config.folder))
    trained = sum(weight.numel() for weight in best.weights().values())
    base = Path(config.model.path) / "unet" / "diffusion_pytorch_model.safetensors"
    total = trained + sum(weight.numel() for weight in load_file(base).values())
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("warning: whether the base sees a difference") for line in lines)
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("train ")) :]
    assert lines[:5] == [
        # Three evaluations of eight pictures at six cells, against three passes a sample.
        "train   12 pictures; held out 6, of which 4 are measured while training; that takes 150.0 % of what "
        "training takes",
        "length  32 samples = 2.67 passes = 8 updates",
        f"weights {trained:,} trained, {100 * trained / total:.3g} % of the U-Net's {total:,}; alpha 16 over rank 2 "
        "multiplies the update by 8",
        "batch   4 = 2 at a time × 2 accumulated × 1 process",
        "device  cpu, fp32",
    ]
    with np.load(config.folder / "heldout.npz") as curve:
        val, row = curve["val"], curve["steps"].tolist().index(best.step)
    pictures = relative(val[row], val[0]) - relative(val[0], val[0])
    known = ttest_1samp(100 * pictures, 0).confidence_interval(0.95)  # four groups of one picture
    low, high = known.low, known.high
    assert lines[5].startswith("memory  about ")
    assert lines[6].startswith("time  ")
    found = re.search(r"held-out loss (\S+) % \[(\S+), (\S+)\]", lines[7])
    assert found, lines[7]
    expected = (100 * pictures.mean(), low, high)
    assert [float(number) for number in found.groups()] == pytest.approx(expected, abs=0.051)


def test_a_run_without_held_out_pictures_says_so(make_config, run_training, capsys):
    config = make_config(val=0, **{"heldout.items": 0, "train.samples": 4})
    run_training(config)
    out = capsys.readouterr().out
    assert "12 pictures; no held-out loss (heldout.items=0)" in out
    assert "against the base model" not in out


def test_many_trainings_stand_on_one_curation(make_config, run_training):
    """Each has a folder of its own without shards, and trains what a run with its own shards trains."""
    own = make_config("own")
    run_training(own)
    config = make_config("own", **{"data.run": "own"})
    config.run.name = "own_optim.lr=1e-3"
    run_training(config)
    assert {path.name for path in config.run.folder.iterdir()} == {"finetune"}
    assert losses(config) == losses(own)
    run = load_run(config.run.folder)
    assert run.config == config
    assert run.curate_dir == own.run.folder / "curate"
    assert run.has("val")
    assert run.captions("val", 4) == load_run(own.run.folder).captions("val", 4)


def test_a_former_cache_goes_when_the_new_one_is_complete(make_config, run_training, capsys):
    config = make_config()
    former = config.folder / "cache"
    former.mkdir(parents=True)
    (former / "train-000000.safetensors").write_bytes(b"latents by shard")
    run_training(config)
    assert not former.exists()
    assert f"{former} was deleted: latents are kept for all runs now" in capsys.readouterr().out
    assert list((Path(config.run.root) / ".cache" / "latents").rglob("*.safetensors"))


def test_another_training_on_the_same_pictures_encodes_nothing(
    make_config, run_training, monkeypatch
):
    run_training(make_config("one"))
    for function in ("_encode_pictures", "_encode_captions"):
        monkeypatch.setattr(
            f"finetune.cache.encoders.{function}", lambda *_: pytest.fail("encoded")
        )
    run_training(make_config("other", method="lora"))


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_in_half_precision_exports_what_it_trained(make_config, run_training, capsys, method):
    """The export is compared in fp32, though training computed in bf16."""
    config = make_config(method=method, **{"optim.mixed_precision": "bf16"})
    run_training(config)
    assert (config.folder / "export").is_dir()
    assert "largest difference" in capsys.readouterr().out
    full = make_config("full-precision", method=method)
    run_training(full)
    ours, theirs = ([r["loss"] for r in losses(c) if "loss" in r] for c in (config, full))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.05)


def test_a_method_that_does_not_fit_is_refused_before_encoding(make_config, run_training):
    config = make_config(method="lora", **{"method.targets": ["no_such_layer"]})
    with pytest.raises(UserError, match="no_such_layer"):
        run_training(config)
    assert not config.folder.exists()


def test_base_value_comes_from_the_untouched_model(make_config, run_training):
    """The stored base losses are those of a freshly loaded pipeline, measured from outside."""
    from finetune.heldout import HeldoutGrid, grid_losses

    config = make_config(method="lora")
    run_training(config)
    run = load_run(config.run.folder)
    assert run.config == config
    model, items = run.model(), run.items("val", 4)
    grid = HeldoutGrid(bins=3, draws=2, seed=0)
    with np.load(config.folder / "heldout.npz") as curve:
        assert items.keys == curve["val_keys"].tolist()
        for at, stored in enumerate([None, *run.checkpoints()]):
            again = grid_losses(model, run.unet_at(stored), items, grid, batch_size=5)
            np.testing.assert_allclose(again, curve["val"][at], rtol=1e-5)
    raw, averaged = (
        [w.clone() for w in run.unet_at(run.checkpoints()[-1], ema=ema).parameters()]
        for ema in (False, True)
    )
    assert any(not torch.equal(a, b) for a, b in zip(raw, averaged, strict=True))
    assert len(run.captions("val", 4)) == 4


CURES = {
    "method": "lora",
    "replay.share": 0.5,
    "replay.pictures": 2,
    "regularise.teacher": 1.0,
    "regularise.weight_l2": 0.1,
    "export.scale": 0.5,
}


_BY_FILE = ("accelerate.commands.launch", "--config_file", str(ROOT / "conf/accelerate/ddp.yaml"))


@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"),
        pytest.param(
            (*_BY_FILE, "--cpu", "--main_process_port", "29572"), marks=pytest.mark.slow, id="file"
        ),
    ],
)
@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, id="plain"), pytest.param(CURES, id="cures", marks=pytest.mark.slow)],
)
def test_two_processes_train_what_one_does(make_config, run_training, tmp_path, launcher, changes):
    """Same global batch, half of it on each rank, in two micro-batches here and one there."""
    one = make_config("one", **changes, **{"optim.gradient_accumulation": 2})
    two = make_config("two", **changes)
    run_training(one)
    typed = [f"{key}={value}" for key, value in changes.items() if key != "method"]
    script = str(ROOT / "finetune" / "train.py")
    process = start(["-m", *launcher, script, *command(two, *typed)], tmp_path)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    last = [list_checkpoints(config.folder)[-1].weights() for config in (one, two)]
    for name, weight in last[0].items():
        torch.testing.assert_close(last[1][name], weight, atol=2e-5, rtol=1e-3)


@pytest.mark.slow
def test_accumulation_changes_nothing_but_rounding(make_config, run_training):
    whole, pieces = make_config("a"), make_config("b", **{"optim.gradient_accumulation": 4})
    for config in (whole, pieces):
        run_training(config)
    for ours, theirs in zip(losses(whole), losses(pieces), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


def test_a_weighting_scales_the_gradient_and_no_loss_that_is_logged(make_config, run_training):
    """With one sample a batch, the first gradient is that of the loss times the weight of its timestep."""
    from finetune.data import keyed_seed

    changes = {"optim.batch_size": 1, "train.samples": 4, "log.every": 1, "heldout.items": 0}
    changes |= {"checkpoint.every": 4, "train.caption_dropout": 0.0, "ema.decay": None}
    plain = make_config("plain", **changes)
    weighted = make_config(
        "weighted", **changes, **{"objective.weighting": "min_snr", "objective.snr_gamma": 0.001}
    )
    for config in (plain, weighted):
        run_training(config)
    generator = torch.Generator().manual_seed(keyed_seed(plain.train.seed, "batch", 0))
    timestep = int(1000 * torch.rand(1, generator=generator, dtype=torch.float64).item())
    snr = compute_snr(load_run(plain.run.folder).model().scheduler, torch.tensor([timestep])).item()
    without, first = losses(plain)[0], losses(weighted)[0]
    assert first["loss"] == without["loss"]
    assert first["grad_norm"] == pytest.approx(
        without["grad_norm"] * min(snr, 0.001) / (snr + 1), rel=1e-3
    )
    assert min(snr, 0.001) / (snr + 1) < 0.5


def test_a_run_of_another_objective_is_not_gone_on_with(make_config, run_training):
    config = make_config(**{"train.samples": 16})
    run_training(config)
    config.objective.noise_offset = 0.1
    config.train.samples = 32
    with pytest.raises(UserError, match=r"with objective\.noise_offset=0\.0, not 0\.1"):
        run_training(config)


def test_a_run_that_notes_no_objective_yet_goes_on(make_config, run_training):
    """As those of earlier versions."""
    config = make_config(**{"train.samples": 16})
    run_training(config)
    for path in config.folder.glob("checkpoints/step-*/state.json"):
        state = json.loads(path.read_text())
        kept = {k: v for k, v in state["identity"].items() if not k.startswith("objective.")}
        assert kept != state["identity"]
        write_certified(path, state | {"identity": kept})
    config.train.samples = 32
    run_training(config)
    assert list_checkpoints(config.folder)[-1].samples_seen == 32


@pytest.mark.slow
def test_memorising_four_pictures_is_noticed(make_config, run_training):
    """A model that knows the domain is tuned on four pictures: training loss down, held-out loss up."""
    options = {
        "optim.lr": 1e-2,
        "optim.batch_size": 16,
        "train.caption_dropout": 0.0,
        "heldout.items": 16,
        "checkpoint.every": 100_000,
        "ema.decay": None,
    }
    domain = make_config("domain", train=48, val=2, **options | {"train.samples": 2_400})
    domain.heldout.every = domain.log.every = 2_400
    run_training(domain)
    changes = {"train.samples": 9_600, "heldout.every": 320, "log.every": 320, "optim.lr": 5e-3}
    config = make_config("four", train=4, val=16, **options | changes)
    config.model.path = str(domain.folder / "export")
    run_training(config)
    trained = [r["loss"] for r in losses(config) if "loss" in r]
    measured = [r for r in losses(config) if "heldout" in r]
    last = list_checkpoints(config.folder)[-1]
    assert last.state()["stopped"] == "overfitting"
    assert last.samples_seen < 9_600
    assert trained[-1] < trained[0]
    assert measured[-1]["train_probe_relative"] < 0.95
    assert measured[-1]["heldout_relative"] > 1.05
    before = digests(config)
    (config.folder / "export").rename(config.folder.parent / "lost")  # as if cut before the export
    run_training(config)
    assert digests(config) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    make_config, run_training, monkeypatch
):
    import finetune.loop

    config = make_config()
    real = finetune.loop.denoising_loss

    def poisoned(*arguments):
        loss = real(*arguments)
        step = len([r for r in losses(config) if "loss" in r])
        spoilt = torch.arange(len(loss)) == 2
        return torch.where(spoilt, torch.nan, loss) if step == 5 else loss

    monkeypatch.setattr(finetune.loop, "denoising_loss", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"update 6 \(after 20 samples\).*samples train-\d+\."):
        run_training(config)
    stored = list_checkpoints(config.folder)
    assert [c.step for c in stored] == [4]
    assert all(torch.isfinite(weight).all() for weight in stored[0].weights().values())


def test_a_held_out_loss_that_is_not_finite_ends_the_run_as_diverged(
    make_config, run_training, monkeypatch
):
    """The weights to export broke down though training losses are finite, as in low precision."""
    import finetune.evaluating

    real = finetune.evaluating.measure

    def broken(run, items):
        measured = real(run, items)
        return measured * np.float32("nan") if run.progress.step > 4 else measured

    monkeypatch.setattr(finetune.evaluating, "measure", broken)
    config = make_config(**{"train.samples": 64})
    run_training(config)
    stored = list_checkpoints(config.folder)
    assert [c.step for c in stored] == [4, 8]  # of 16: what is not a number does not recover
    assert stored[-1].state()["stopped"] == "diverged"
    assert [c.heldout is None for c in stored] == [False, True]
    assert best_of(stored) == stored[0]
    measured = [r for r in losses(config) if "heldout" in r]
    names = ("heldout", "heldout_relative", "train_probe", "train_probe_relative")
    assert [[r[name] is None for name in names] for r in measured] == [
        [at > 1] * 4 for at in range(3)
    ]


def test_an_overflown_gradient_is_logged_as_null(make_config, run_training, monkeypatch):
    """In fp16 the scaler skips that step, and JSON has no infinity."""
    import finetune.loop

    real = finetune.loop.update

    def overflown(run, batch):
        loss, norm = real(run, batch)
        return loss, float("inf") if run.progress.step == 2 else norm

    monkeypatch.setattr(finetune.loop, "update", overflown)
    config = make_config()
    run_training(config)
    norms = [r["grad_norm"] for r in losses(config) if "loss" in r]
    assert norms[2] is None
    assert all(norm > 0 for norm in norms[:2] + norms[3:])


def test_without_held_out_pairs_the_last_checkpoint_is_exported(make_config, run_training):
    config = make_config(val=0, **{"heldout.items": 0, "checkpoint.keep": 1})
    run_training(config)
    stored = list_checkpoints(config.folder)
    assert [c.step for c in stored] == [4, 8]
    assert stored[0].heldout is None
    assert best_of(stored) == stored[-1]
    assert not any("heldout" in record for record in losses(config))
    state = json.loads((stored[0].path / "state.json").read_text())
    assert state["stopped"] is None
