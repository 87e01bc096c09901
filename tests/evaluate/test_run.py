"""One whole evaluation of a tiny run: its files, its exit code, and that it is not done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from curate.clip.config import ClipConfig
from curate.run import checksums
from curate.run.files import write_certified
from curate.run.provenance import write_config
from curate.run.schema import UserError, to_dataclass
from evaluate import evaluators, results, run
from evaluate.config import EvaluateConfig, GateConfig, GateRule
from evaluate.judged_runs.judged import open_judged
from evaluate.measure import grid
from evaluate.measure_config import (
    CopyingConfig,
    DistributionConfig,
    GridConfig,
    RunConfig,
    SamplesConfig,
)
from finetune import export
from finetune.checkpoint import list_checkpoints
from finetune.config import DataConfig
from finetune.drawing import sampling
from finetune.drawing.config import SamplerConfig
from finetune.heldout import relative
from finetune.models.sd import StableDiffusion
from tests.finetune.conftest import curate

ROOT = Path(__file__).resolve().parents[2]
BETTER = GateRule(metric="heldout_change", op="<", threshold=0.0, use="ci_high")
WORSE = GateRule(metric="heldout_change_last", op=">", threshold=0.0, use="ci_low")


def config(trained, clip_dir: Path, rule: GateRule = BETTER, **grid_changes) -> EvaluateConfig:
    return EvaluateConfig(
        run=RunConfig(trained.run.root, trained.run.name),
        clip=ClipConfig(name=f"local-dir:{clip_dir}"),
        sampler=SamplerConfig("ddim", steps=2),
        gate=GateConfig({"rule": rule}),
        grid=GridConfig(**{"items": 34, "bins": 3, "draws": 1, **grid_changes}),
        samples=SamplesConfig(rows=3, clip_captions=20),
        copying=CopyingConfig(0),
    )


@pytest.mark.slow
def test_a_training_that_started_with_an_export(make_run, clip_dir, monkeypatch, capsys):
    """Judged against the base; the report says what it started with; any checkpoint is exported."""
    make_run("first")
    trained = make_run("second", **{"method.init": "first", "optim.lr": 1e-9})
    lines: list[str] = []
    run.evaluate_run(config(trained, clip_dir), lines.append)
    folder = trained.run.folder / "evaluate"
    found = results.load(folder / "report.json")
    assert [c.step for c in found.checkpoints] == [0, 4, 8, 12, 16]
    started, kept = (found.metrics[name] for name in ("start_change", "heldout_since_start"))
    assert abs(started.value) > 0.001
    assert kept.value == pytest.approx(0, abs=1e-4)
    assert found.verdict.word == "no_effect"
    assert "Training started with an export, whose held-out loss is" in found.verdict.sentence
    assert found.provenance["start"]["run"] == str((trained.run.folder.parent / "first").resolve())
    assert "started with first" in (folder / "report.html").read_text()
    with np.load(folder / "losses.npz") as stored:
        assert stored["val/start"].shape == stored["val/00000000"].shape
    monkeypatch.setattr("sys.argv", ["export", str(trained.run.folder), "step=4"])
    export.main()
    assert "export-step-00000004 (loaded again by diffusers" in capsys.readouterr().out
    (trained.folder / "start" / "state.json").unlink()
    with pytest.raises(UserError, match="what this training started with, is damaged or not there"):
        run.evaluate_run(config(trained, clip_dir), lines.append)


@pytest.mark.slow
def test_a_training_on_two_curations(make_config, run_training, clip_dir):
    """Judged on what both hold out; refused once one of them has other shards."""
    root = Path(make_config("unused").run.root)
    curate(root / "mine" / "curate", {"train": 20, "val": 20, "test": 18}, max_samples=40)
    photos = {"train": 24, "val": 20, "test": 18}
    curate(root / "photos" / "curate", photos, max_samples=40, prefix="p-", seed=200)
    (root / "both" / "curate").mkdir(parents=True)
    trained = make_config("both", method="lora", **{"train.samples": 32, "optim.lr": 0.01})
    (root / "both" / "curate").rmdir()
    trained.data = DataConfig(runs={"mine": 1, "photos": 0.5})
    run_training(trained)
    run.evaluate_run(config(trained, clip_dir), lambda line: None)
    found = results.load(trained.run.folder / "evaluate" / "report.json")
    assert found.metrics["heldout_change"].n == 34
    lines = (trained.run.folder / "evaluate" / "samples.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"].startswith("p-") for line in lines]
    assert len(set(keys)) == 2
    page = (trained.run.folder / "evaluate" / "report.html").read_text()
    assert "Trained on several curations" in page
    judged = open_judged(trained.run.folder)
    assert judged.manifest.digest() == found.provenance["measured"]["shards"]
    photos["train"] += 1
    curate(root / "photos" / "curate", photos, max_samples=40, prefix="p-", seed=200)
    with pytest.raises(
        UserError, match=r"other curated data .*'data\.runs=\{mine: 1, photos: 0\.5\}'"
    ):
        run.evaluate_run(config(trained, clip_dir), lambda line: None)
    with pytest.raises(
        UserError, match=r"was curated again after .*'data\.runs=\{mine: 1, photos: 0\.5\}'"
    ):
        judged.manifest  # noqa: B018


def test_whole(make_run, clip_dir, monkeypatch, tmp_path):
    trained = make_run()
    folder = trained.run.folder / "evaluate"
    lines: list[str] = []
    asked = replace(
        config(trained, clip_dir),
        samples=SamplesConfig(rows=3, clip_captions=34),
        distribution=DistributionConfig(captions=16, seeds=2),
    )
    tracked: list[tuple] = []
    with monkeypatch.context() as patched:
        patched.setattr(run.tracking, "write", lambda *given: tracked.append(given))
        code = run.evaluate_run(asked, lines.append)
    found = results.load(folder / "report.json")
    assert tracked == [("auto", folder, tracked[0][2])]
    assert [step for step, _ in tracked[0][2]] == sorted(
        [*[0, 4, 8, 12, 16] * 2, found.verdict.kept]
    )
    assert code == {"passed": 0, "warned": 0, "failed": 1, "undecided": 3}[found.gate]
    assert lines[0] == f"verdict {found.verdict.word}"
    assert [line.split()[0] for line in lines[1:3]] == ["result", "trend"]
    assert lines[-1].endswith("report.html")
    assert [c.step for c in found.checkpoints] == [0, 4, 8, 12, 16]
    assert found.metrics.keys() == evaluators.descriptions().keys()
    _check_against_the_arrays(found, folder)
    _check_pictures(found, folder)
    _check_samples(found, folder)
    for name in ("report.html", "summary.md", "junit.xml"):
        assert (folder / name).stat().st_size > 100
    assert len(list((folder / "samples" / "base" / "again-1").glob("*.png"))) == 16
    for name in ("kid_change", "vendi_change", "caption_vendi_change"):
        assert found.metrics[name].value is not None
    _check_nothing_is_done_twice(asked, monkeypatch, folder)

    few = config(trained, clip_dir, items=31)
    monkeypatch.undo()
    assert run.evaluate_run(few, lines.append) == 3
    assert results.load(folder / "report.json").verdict.word == "inconclusive"


def _check_samples(found: results.Results, folder: Path):
    """The mean over groups of the losses in samples.jsonl is the change in the report."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    val = [line for line in lines if line["split"] == "val"]
    assert len(val) == found.metrics["heldout_change"].n
    assert all(line["caption"] and line["key"] for line in lines)
    groups: dict[str, list[float]] = {}
    for line in val:
        groups.setdefault(line["group"], []).append(line["loss"]["kept"] - line["loss"]["base"])
    means = [np.mean(values) for values in groups.values()]
    assert np.mean(means) == pytest.approx(found.metrics["heldout_change"].value, abs=1e-5)


def test_a_training_on_the_shards_of_another_run_is_judged_on_them(make_run, clip_dir):
    """Where the curation is, is read from the training's configuration, not from the evaluation's."""
    trained = make_run()
    shared = trained.run.folder.with_name("shared")
    (trained.run.folder / "curate").rename(trained.run.folder.with_name("moved"))
    with pytest.raises(FileNotFoundError, match="holds no finished curation"):
        run.evaluate_run(config(trained, clip_dir), print)
    shared.mkdir()
    trained.run.folder.with_name("moved").rename(shared / "curate")
    write_config(trained.folder / "config.yaml", replace(trained, data=DataConfig("shared")))
    run.evaluate_run(config(trained, clip_dir), print)
    found = results.load(trained.run.folder / "evaluate" / "report.json")
    assert found.run == "judged"
    assert found.pictures
    assert not (shared / "evaluate").exists()


@pytest.mark.slow
def test_a_training_that_has_not_ended_is_said_to_go_on_first(make_run, clip_dir):
    trained = make_run()
    write_config(
        trained.folder / "config.yaml",
        replace(trained, train=replace(trained.train, samples=10 * trained.train.samples)),
    )
    said = []
    run.evaluate_run(config(trained, clip_dir), said.append)
    last = list_checkpoints(trained.folder)[-1].step
    found = results.load(trained.run.folder / "evaluate" / "report.json")
    assert f"The training has not ended (step {last} of {10 * last})" in found.verdict.advice
    assert any("The training has not ended" in line for line in said)


def test_the_gate_judges_the_exported_checkpoint(make_run, clip_dir):
    """The first checkpoint undoes what the run learnt, and training believed it to be the best."""
    trained = make_run()
    first, *_, last = list_checkpoints(trained.folder)
    state = json.loads((first.path / "state.json").read_bytes())
    write_certified(first.path / "state.json", state | {"heldout": 0.01})
    backwards = {
        name: -weight if "lora_B" in name else weight for name, weight in last.weights().items()
    }
    save_file(backwards, first.path / "ema.safetensors")
    checksums.write(first.path)
    rule = GateRule(metric="exported_change", op="<", threshold=-0.1, use="ci_high")
    assert run.evaluate_run(config(trained, clip_dir, rule), print) == 1
    found = results.load(trained.run.folder / "evaluate" / "report.json")
    assert found.verdict.exported == first.step
    assert found.verdict.kept == last.step
    kept = found.metrics["heldout_change"].high
    assert kept is not None
    assert kept < -0.1  # of the kept one, it would have passed
    assert found.metrics["exported_change"].on == "test"  # which had no part in choosing it


def test_without_a_split_test_its_metric_says_why_it_is_not_measured(make_run, clip_dir):
    trained = make_run(test=0)
    run.evaluate_run(config(trained, clip_dir), print)
    unseen = results.load(trained.run.folder / "evaluate" / "report.json").metrics["test_change"]
    assert unseen.value is None
    assert "the split 'test' has fewer than" in unseen.reason


def test_without_held_out_pictures_there_is_nothing_to_judge(make_run, clip_dir):
    trained = make_run(val=0, **{"heldout.items": 0})
    with pytest.raises(UserError, match=r"no pictures in the split 'val'; give split\.val"):
        run.evaluate_run(config(trained, clip_dir), print)


def test_the_default_gate_judges_the_export():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        asked = to_dataclass(compose("evaluate"), EvaluateConfig)
    assert asked.gate.rules["better_than_base"].metric == "exported_change"


def test_a_run_is_not_judged_on_other_data_or_from_another_base(make_run, clip_dir, tmp_path):
    """Curated again under the same name, what was trained on may be held out now."""
    trained = make_run()
    asked = config(trained, clip_dir)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StableDiffusion, "fingerprint", lambda _: "another one")
        with pytest.raises(UserError, match="started from other weights of the base model"):
            run.evaluate_run(asked, print)
    shutil.rmtree(trained.run.folder / "curate")
    curate(trained.run.folder / "curate", {"val": 40, "train": 36, "test": 34}, max_samples=40)
    with pytest.raises(UserError, match="started from other curated data"):
        run.evaluate_run(asked, print)
    assert not (trained.run.folder / "evaluate").exists()


def _check_against_the_arrays(found: results.Results, folder: Path) -> None:
    """The numbers follow from losses.npz alone."""
    stored = np.load(folder / "losses.npz")
    base, last = stored["val/00000000"], stored["val/00000016"]
    assert base.shape == (34, 3, 1)
    change = (relative(last, base) - relative(base, base)).mean()
    assert found.metrics["heldout_change_last"].value == pytest.approx(change, rel=1e-5)
    assert found.checkpoints[-1].val.value == pytest.approx(change, rel=1e-5)
    assert len(set(stored["val/keys"]) | set(stored["train_probe/keys"])) == 68
    assert all(key.startswith("train-") for key in stored["train_probe/keys"])


def _check_pictures(found: results.Results, folder: Path) -> None:
    assert len(found.pictures) == 3
    for picture in found.pictures:
        assert {"base", "step-00000016"} <= picture.files.keys()
        for name in picture.files.values():
            assert (folder / name).read_bytes().startswith(b"\x89PNG")


def _check_nothing_is_done_twice(again: EvaluateConfig, monkeypatch, folder: Path) -> None:
    def never(*_args, **_options):
        raise AssertionError("done again")

    files = [p for p in folder.rglob("*") if p.is_file()]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(grid, "grid_losses", never)
    monkeypatch.setattr(sampling.Sampler, "draw", never)
    run.evaluate_run(again, lambda _: None)
    assert {path: path.read_bytes() for path in files} == before


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "evaluate", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run.name=nowhere"], ["accelerate launch finetune/train.py run.name=nowhere"]),
        (["sampler.steps=0"], ["sampler.steps=0", "1 ... 1000"]),
        (["grid.items=abc"], ["grid.items", "abc"]),
        (["smapler=ddim"], ["smapler"]),
        (["+typo=1"], ["typo"]),
        (["gate.on_undecided=maybe"], ["gate.on_undecided=maybe", "exit_3"]),
    ],
)
def test_wrong_requests_end_in_a_paragraph(tmp_path, arguments, parts):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr


def test_a_metrics_older_name_is_said_once_with_the_rules_name(tmp_path):
    arguments = ("run.name=nowhere", "gate.rules.better_than_base.metric=probe_change")
    said = command(*arguments, cwd=tmp_path).stderr.splitlines()
    key = "gate.rules.better_than_base.metric"
    assert [line for line in said if "deprecated" in line] == [
        f"note: {key}=probe_change is deprecated; type {key}=train_probe_change"
    ]


def test_help_and_checking_import_nothing_heavy(tmp_path):
    assert "gate=default|none" in command("--help", cwd=tmp_path).stdout
    code = (
        "import sys, evaluate.__main__; "
        "heavy = {'torch', 'pandas', 'diffusers', 'matplotlib', 'open_clip'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_first_process_of_a_launch_works(tmp_path, monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    done = command("run.name=nowhere", cwd=tmp_path)
    assert done.returncode == {"0": 2, "1": 0}[rank]
