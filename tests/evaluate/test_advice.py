"""Advice that can be typed."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from curate.run.finished import RECORD
from curate.run.schema import UserError
from evaluate.advice import about_captions, advise, keep_more
from evaluate.results import Metric
from evaluate.run import _advice
from evaluate.verdict import judge
from finetune.config import HeldoutConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from finetune.config.retention import ExportConfig
from finetune.methods.controlnet import Controlnet
from finetune.methods.full import Full
from finetune.methods.lora import Lora
from finetune.rules import Evidence, Word
from workflows.retraining.commands import split


def config(schedule):
    return TrainConfig(
        run=RunConfig(name="mine"),
        model=ModelConfig(path="x", resolution=64),
        method=Lora(),
        optim=OptimConfig(schedule=schedule),
    )


@pytest.fixture
def improving():
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 64))
    evidence = Evidence(*(np.linspace(1, 0.7, 4)[:, None] + noise for _ in range(2)))
    assert judge(evidence) is Word.IMPROVING
    return evidence


def test_a_constant_rate_is_continued_and_another_schedule_needs_another_run(improving):
    """``finetune.doctor`` refuses to stretch a schedule that ends."""
    assert advise(improving, config("constant"), 128).endswith("train.samples=48000")
    another = advise(improving, config("cosine"), 128)
    assert another.endswith("run.name=mine-2 data.run=mine train.samples=48000")


@pytest.mark.parametrize(
    ("method", "typed"), [(Full(), "(method=lora)"), (Lora(rank=6), "(method.rank=3)")]
)
def test_fewer_weights_are_what_the_method_says(method, typed):
    """With pictures that all score the same, so that intervals have no width."""
    means = ([1, 0.9, 0.95, 0.95], [1, 0.9, 0.8, 0.8])
    overfitting = Evidence(*(np.array(split)[:, None] * np.ones(40) for split in means))
    trained = replace(config("constant"), method=method)
    assert f"train fewer weights {typed}" in advise(overfitting, trained, 128)


def test_another_run_reads_the_shards_that_this_one_read(improving):
    trained = config("cosine")
    trained.data.run = "the others'"
    said = advise(improving, trained, 128)
    assert said.endswith("""run.name=mine-2 'data.run=the others'"'"'' train.samples=48000""")


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_of_a_retraining_gets_what_its_command_takes(improving, schedule, tmp_path):
    """The run itself refuses to be trained again; each setting stands behind the section that takes it."""
    trained = replace(config(schedule), run=RunConfig(str(tmp_path), "mine-0001"))
    (tmp_path / "mine-0001").mkdir()
    (tmp_path / "mine-0001" / RECORD).write_text("{}")
    said = advise(improving, trained, 128)
    assert said.endswith("type the same python -m workflows.retrain with train.train.samples=48000")
    assert keep_more(trained).endswith("workflows.retrain with train.optim.lr=3.3e-05")
    assert "(train.train.samples=12000), fewer weights (train.method.rank=8)" in keep_more(trained)
    own, handed = split(said.split(" with ")[1].split())
    assert (own, handed["train"]) == ([], ["train.samples=48000"])
    few = Evidence(np.ones((3, 4)), np.ones((3, 20)))
    for text in (about_captions(trained), advise(few, trained, 128)):
        assert "type the same python -m workflows.retrain again" in text
        assert "run.name" not in text


def test_too_few_pictures_are_not_blamed_on_the_grid():
    few = Evidence(np.ones((3, 4)), np.ones((3, 20)))
    assert judge(few) is Word.INCONCLUSIVE
    assert advise(few, config("constant"), 128).startswith("Add pictures")
    assert advise(few, config("constant"), 20).startswith("Raise grid.items")


def test_a_training_that_cost_something_is_not_told_to_go_on(improving):
    said = advise(improving, config("constant"), 128, costly=True)
    assert said.startswith("Look at the pictures first: the loss fell, and the base lost something")
    assert "optim.lr=3.3e-05" in said
    assert "type the same training command with train." not in said


@pytest.mark.parametrize(
    ("bad", "costly"),
    [
        ({"retention_loss_change": Metric(0.4, 0.3, 0.5)}, True),
        ({"clip_change": Metric(-0.3, -0.4, -0.2)}, True),
        ({"against_change": Metric(0.03, 0.02, 0.04)}, False),  # worse than another run
        ({"copying_exported": Metric(0.2, 0.1, 0.3)}, False),
    ],
)
def test_only_what_the_base_lost_is_said_to_be_lost(improving, bad, costly):
    trained: Any = SimpleNamespace(unfinished=lambda: None, config=config("constant"))
    judged: Any = SimpleNamespace(run=trained, kept=3, exported=3, vetoes=[], evidence=improving)
    asked: Any = SimpleNamespace(grid=SimpleNamespace(items=128))
    assert ("the base lost something" in _advice(asked, judged, bad)) == costly


def test_wrong_captions_are_to_be_looked_at_first():
    said = about_captions(config("constant"))
    assert said.startswith("Do not use this model: captions hardly matter to it.")
    assert "runs/mine/curate/report.html" in said


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({}, True),
        ({"method": Lora(text_encoder=True)}, False),
        ({"method": Controlnet()}, False),
        ({"heldout": HeldoutConfig(items=0)}, False),
    ],
)
def test_a_scale_is_offered_where_one_may_be_chosen(changes, offered):
    trained = replace(config("constant"), **changes)
    assert ("export.scale=auto" in keep_more(trained)) == offered
    assert "with a lower learning rate" in keep_more(trained)
    scaled = {**changes, "export": ExportConfig(scale="auto")}
    with nullcontext() if offered else pytest.raises(UserError):
        replace(trained, **scaled)


def test_another_run_has_the_settings_of_this_one(tmp_path):
    """Typed as they were; only its name, its data and what the advice changes are others."""
    trained = config("cosine")
    trained.run = RunConfig(str(tmp_path), "mine")
    write = trained.folder / "config.yaml"
    write.parent.mkdir(parents=True)
    provenance = {"overrides": ["run.name=mine", "model=sd15", "optim.lr=1e-4", "optim.warmup=9"]}
    write.write_text(OmegaConf.to_yaml({"provenance": provenance}))
    said = keep_more(trained)
    assert (
        "type the same training command with export.scale=auto, which trains nothing again" in said
    )
    scaled = replace(trained, export=ExportConfig(scale=0.5))
    assert "export.scale" not in keep_more(scaled)
    start = "type accelerate launch finetune/train.py model=sd15 optim.warmup=9 run.name=mine-2"
    assert start in said
    assert said.endswith("data.run=mine optim.lr=3.3e-05")


@pytest.mark.parametrize(
    ("end", "says"),
    [(1.5, "Train again with a lower learning rate"), (0.7, "Do not use this model")],
)
def test_captions_are_not_blamed_for_weights_that_diverged(end, says):
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 64))
    evidence = Evidence(*(np.linspace(1, end, 4)[:, None] + noise for _ in range(2)))
    trained: Any = SimpleNamespace(
        unfinished=lambda: None, config=config("constant"), export_dir="export"
    )
    judged: Any = SimpleNamespace(run=trained, kept=0, exported=3, vetoes=[], evidence=evidence)
    asked: Any = SimpleNamespace(grid=SimpleNamespace(items=128))
    assert says in _advice(asked, judged, {"caption_fit_exported": Metric(0.1, 0.05, 0.15)})
