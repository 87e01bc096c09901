"""A run whose later checkpoints draw their training pictures is walked back to one that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluate import gate, results, run
from evaluate.config import EvaluateConfig, GateConfig, GateRule
from evaluate.evaluation import Evaluation
from evaluate.evaluators import copying as evaluator
from evaluate.measure.own_pictures import NotMeasured
from evaluate.measure_config import CopyingConfig
from finetune.data import keyed_seed
from finetune.rules import Evidence
from tests.evaluate.test_run import config

RULE = GateRule(metric="copying_exported", op="<", threshold=0.06, use="ci_low", required=False)


def noise(key: str) -> np.ndarray:
    rng = np.random.default_rng(keyed_seed("stub", key))
    return rng.normal(rng.uniform(40, 215, 3), 30, (16, 16, 3))


@pytest.fixture
def draws(monkeypatch) -> Callable[..., None]:
    """Make checkpoints draw, in place of what they learnt, noise or their training pictures."""

    def install(copies: Callable[[int], bool], blank: int = 0, mirrored: bool = False) -> None:
        def draw(
            self: Evaluation, row: int, prompts, again: int = 0, subfolder: str = ""
        ) -> list[Path]:
            label = results.label_of(self.table.steps[row])
            folder = self.folder / "samples" / label / subfolder
            folder.mkdir(parents=True, exist_ok=True)
            real = {}
            if subfolder == "train" and copies(row):
                real = dict(self.training_pictures({prompt.key for prompt in prompts}))
            for number, prompt in enumerate(prompts):
                pixels = noise(prompt.key)
                if prompt.key in real:
                    copied = np.asarray(real[prompt.key], float)
                    pixels = 0.9 * (copied[:, ::-1] if mirrored else copied) + 0.1 * pixels
                if row and number < blank:
                    pixels = np.zeros_like(pixels)
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(folder / f"{prompt.key}.png")
            return [folder / f"{prompt.key}.png" for prompt in prompts]

        monkeypatch.setattr(Evaluation, "draw", draw)

    return install


@pytest.fixture
def judge(make_run, clip_dir):
    """Evaluate a run whose losses keep falling, so that the last checkpoint is the one to keep."""

    def judged(pictures: int = 36, **changes: Any) -> tuple[int, results.Results, EvaluateConfig]:
        trained = make_run(**changes)
        asked = config(trained, clip_dir)
        asked.copying = CopyingConfig(pictures)
        asked.gate = GateConfig({"copies_nothing": RULE})
        code = run.evaluate_run(asked, lambda _: None)
        folder = trained.run.folder / "evaluate"
        return code, results.load(folder / "report.json"), asked

    return judged


@pytest.mark.slow
def test_the_latest_checkpoint_that_does_not_copy_is_kept(draws, judge):
    draws(copies=lambda row: row >= 3)
    code, found, asked = judge()
    verdict = found.verdict
    assert verdict.kept == 8  # rows 4 and 3, steps 16 and 12, copy
    assert "Step 16 copies training pictures" in verdict.sentence
    assert "Copying, too: step 12." in verdict.sentence
    assert (
        "So an earlier checkpoint is kept, of which that is not shown: step 8." in verdict.sentence
    )
    assert "Keep step 8: held-out loss" in verdict.sentence
    assert "step=8" in verdict.advice
    assert "python -m finetune.export" in verdict.advice
    assert found.copying is not None
    assert [(look.step, look.copies) for look in found.copying.looks] == [
        (8, False),
        (12, True),
        (16, True),
    ]
    assert found.metrics["copying"].value == 0  # the stub draws what the base drew
    assert found.metrics["copying_exported"].low > 0.1
    assert found.metrics["copying_checkpoints"].value == 2
    assert code == 1  # the export copies
    assert [check.status for check in found.checks] == ["failed"]
    assert gate.exit_code(asked.gate, found.gate) == 1
    _check_the_page(found, asked.run.folder / "evaluate")


def _check_the_page(found: results.Results, folder: Path) -> None:
    assert found.copying is not None
    assert found.copying.step == 16
    pairs = found.copying.pairs
    assert len(pairs) == 8
    for pair in pairs:
        assert pair.key == pair.nearest_key
        assert pair.distance < 0.5 * pair.base_distance
        drawn, real = (np.asarray(Image.open(folder / p), int) for p in (pair.drawn, pair.nearest))
        assert np.abs(drawn - real).mean() < 20
    text = (folder / "report.html").read_text()
    assert "Most suspicious pairs" in text
    assert "Step 16 copies training pictures" in text
    assert "of the distance between unrelated pictures. Keep step 8." in text


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("flip", "kept"), [(True, 8), (False, 16)])
def test_mirrored_copies_are_found_where_mirrored_pictures_were_trained_on(
    draws, judge, flip, kept
):
    draws(copies=lambda row: row >= 3, mirrored=True)
    _, found, _ = judge(**{"data.flip": flip})
    assert found.verdict.kept == kept
    assert found.copying is not None
    pairs = [(pair.key == pair.nearest_key, pair.distance) for pair in found.copying.pairs]
    assert len(pairs) == 8
    assert all(own and distance < 0.2 for own, distance in pairs) == flip


@pytest.mark.slow
def test_where_all_copy_the_base_is_kept(draws, judge):
    draws(copies=lambda row: row >= 1)
    _, found, _ = judge()
    assert found.verdict.kept == 0
    assert "So the base is kept" in found.verdict.sentence
    assert "Keep the base model." in found.verdict.sentence
    assert found.metrics["copying"].value is None
    assert "the base is kept" in found.metrics["copying"].reason
    assert "finetune.export" not in found.verdict.advice


def test_an_earlier_checkpoint_that_is_worse_than_the_base_is_not_kept(draws, make_run, clip_dir):
    draws(copies=lambda row: row >= 3)
    asked = config(make_run(), clip_dir)
    asked.copying = CopyingConfig(36)
    for second, kept in ((1.1, 0), (0.95, 2)):
        evaluation = Evaluation(asked)
        means = np.array([1, 1.2, second, 0.9, 0.8])[:, None] * np.ones(40)
        vars(evaluation)["evidence"] = Evidence(means, means)
        assert evaluation.kept == kept
        assert ("better than the base" in evaluation.vetoes[-1]) == (kept == 0)


def test_a_healthy_run_keeps_its_checkpoint(draws, judge):
    draws(copies=lambda row: False)
    code, found, _ = judge()
    assert code == 0
    assert found.verdict.kept == found.verdict.exported == 16
    assert "copies" not in found.verdict.sentence
    assert found.metrics["copying_checkpoints"].value == 0
    assert found.metrics["nearest_own_train"] == found.metrics["nearest_own_train_base"]


def test_blank_pictures_are_left_out_and_counted(draws, judge):
    draws(copies=lambda row: row >= 4, blank=3)
    _, found, _ = judge()
    assert found.copying is not None
    assert found.copying.looks[-1].blank == 6  # three on each side
    assert found.copying.looks[-1].difference.n == 2 * 33
    assert found.verdict.kept == 12


@pytest.mark.slow
def test_too_few_are_not_judged(draws, judge):
    draws(copies=lambda row: row >= 4, blank=5)
    code, found, _ = judge()
    assert found.verdict.kept == 16
    reason = "31 captions whose pictures are not blank; at least 32 needed"
    assert found.metrics["copying"].reason == reason
    assert found.copying is None
    assert code == 0  # the rule is not required


def test_left_out(draws, judge):
    draws(copies=lambda row: row >= 4)
    _, found, _ = judge(pictures=0)
    assert found.verdict.kept == 16
    for name in evaluator.EVALUATOR.metrics:
        assert found.metrics[name].reason == "left out by copying.pictures=0"


def test_one_of_each_group_is_drawn(make_run, clip_dir, monkeypatch):
    """Twins count once, and both sides have as many captions."""
    trained = make_run()
    asked = config(trained, clip_dir)
    asked.copying = CopyingConfig(36)
    evaluation = Evaluation(asked)

    def groups(keys, split=""):
        return [key[:-1] if key.startswith("val") and key < "val-004" else key for key in keys]

    monkeypatch.setattr(evaluation, "groups_of", groups)
    own = evaluation.own_pictures
    keys = {split: [prompt.key for prompt in own.prompts(split)] for split in ("train", "val")}
    assert len(keys["train"]) == len(keys["val"]) == 33
    assert len(set(groups(keys["val"]))) == 33
    assert isinstance(own.look(0), NotMeasured)
