"""Advice that can be typed."""

import numpy as np
import pytest

from evaluate.advice import advise
from evaluate.verdict import Evidence, Word, judge
from finetune.config import LoraConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig


def config(schedule):
    return TrainConfig(
        run=RunConfig(name="mine"),
        model=ModelConfig(path="x", resolution=64),
        method=LoraConfig(),
        optim=OptimConfig(schedule=schedule),
    )


@pytest.fixture
def improving():
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 64))
    evidence = Evidence(*(np.linspace(1, 0.7, 4)[:, None] + noise for _ in range(2)))
    assert judge(evidence) is Word.IMPROVING
    return evidence


def test_a_constant_rate_is_continued_and_another_schedule_starts_anew(improving):
    """``finetune.doctor`` refuses to stretch a schedule that ends."""
    assert advise(improving, config("constant")).endswith("train.samples=40000")
    assert "run.name=mine-2" in advise(improving, config("cosine"))
