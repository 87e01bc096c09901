"""What the base could do: nothing is lost by the same weights, something by others, and all is measured once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from curate.clip.config import ClipConfig
from evaluate.evaluators.retention import caption_gains
from evaluate.measure import caption_losses, grid
from evaluate.measure.grid import Grid, LossStore
from evaluate.measure.retention import Retention, key_of
from evaluate.measure_config import GridConfig, MeasureConfig, RetentionConfig, RunConfig
from evaluate.outputs.headline import missing
from evaluate.results import Metric
from finetune.config import ModelConfig
from finetune.drawing import sampling
from finetune.drawing.config import SamplerConfig
from finetune.drawing.latents import encode
from finetune.heldout import HeldoutGrid, grid_losses, relative
from finetune.intervals import estimate
from finetune.models import load_model
from tests.finetune.conftest import curate

# By row: what the last convolution's weights are multiplied by. The first checkpoint has the base's weights.
FACTORS = (1.0, 1.0, 20.0)


@dataclass(frozen=True)
class PlantedCheckpoint:
    """Its weights are the base's but for one factor."""

    step: int
    factor: float
    file: Path
    scale: float = 1.0

    samples_seen = 64

    def weights_path(self) -> Path:
        return self.file


class PlantedRun:
    """A base of random weights and checkpoints that were never trained."""

    def __init__(self, model: Any, root: Path) -> None:
        self._model, self.run_dir, self.curate_dir = model, root / "judged", root / "judged/curate"
        self.loaded = 0
        self._checkpoints = []
        for step, factor in enumerate(FACTORS[1:], 1):
            file = root / f"weights-{step}"
            file.write_text(str(factor))
            self._checkpoints.append(PlantedCheckpoint(step, factor, file))

    def model(self, device: Any = "cpu") -> Any:
        return self._model

    def checkpoints(self) -> list[Any]:
        return self._checkpoints

    def unet_at(self, stored: Any, device: Any = "cpu") -> Any:
        self.loaded += 1
        unet = copy.deepcopy(self._model.unet).eval()
        if stored is not None:
            with torch.no_grad():
                unet.conv_out.weight *= stored.factor
        return unet


@pytest.fixture(scope="module")
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


@pytest.fixture
def make(model, tmp_path):
    """A factory of the same retention, opened once more each time."""

    def build(**settings) -> Retention:
        config = MeasureConfig(
            run=RunConfig(str(tmp_path), "judged"),
            clip=ClipConfig(name="ViT-B-32"),
            sampler=SamplerConfig("ddim", steps=2),
            grid=GridConfig(bins=4),
            retention=RetentionConfig(**{"items": 32, **settings}),
        )
        folder = tmp_path / "judged" / "evaluate"
        run: Any = PlantedRun(model, tmp_path)
        store = LossStore(folder / "losses.npz")
        return Retention(config, Grid(run, config.grid, store, torch.device("cpu")), folder)

    return build


def everything(found: Retention, row: int = 2) -> dict[str, Metric]:
    """All metrics of a row."""
    measured = {"change": found.change(row), "drift": found.drift(row)}
    return measured | caption_gains(found, row)


def test_the_same_weights_lose_exactly_nothing(make):
    found = make()
    for row in (0, 1):
        measured = everything(found, row)
        for name in ("change", "drift", "retention_caption_gain_change"):
            metric = measured[name]
            assert (metric.value, metric.low, metric.high) == (0.0, 0.0, 0.0)
            assert metric.groups == 32
    assert found.change(0).on == "base pictures"


def test_other_weights_raise_the_loss_and_move_the_pictures(make):
    found = make()
    change, drift = found.change(2), found.drift(2)
    assert change.low is not None
    assert drift.low is not None
    assert change.low > 1
    assert drift.low > 0.1


def test_the_loss_is_that_of_held_out_pictures(make, model):
    """Measured again, without the store: the base's own pictures, their own prompts, one noise a level."""
    found = make()
    latents = encode(model, found.drawn(0))
    assert torch.equal(found.items.latents, latents)
    cells = HeldoutGrid(bins=4, draws=1)
    base, later = (
        grid_losses(model, found._run.unet_at(row), found.items, cells, 16)
        for row in (None, found.rows[2])
    )
    expected = estimate(relative(later, base) - relative(base, base))
    assert found.change(2).value == pytest.approx(expected.value, rel=1e-5)
    assert found.change(2).high == pytest.approx(expected.high, rel=1e-5)


def test_a_second_evaluation_draws_and_measures_nothing(make, monkeypatch):
    first = make()
    before = everything(first), first.result(2)

    def never(*_args, **_options):
        raise AssertionError("done again")

    monkeypatch.setattr(sampling.Sampler, "draw", never)
    monkeypatch.setattr(grid, "grid_losses", never)
    monkeypatch.setattr(caption_losses, "caption_effects", never)
    again = make()
    assert (everything(again), again.result(2)) == before
    assert again._run.loaded == 0  # type: ignore[attr-defined]


def test_a_damaged_picture_is_drawn_again_and_no_other(make, monkeypatch, capsys):
    paths = make().drawn(0)
    content = [path.read_bytes() for path in paths]
    damaged = bytearray(content[5])
    damaged[damaged.index(b"IDAT") + 20] ^= 1
    paths[5].write_bytes(damaged)
    drawn = []
    draw = sampling.Sampler.draw

    def noted(self, unet, prompts):
        drawn.extend(prompts)
        return draw(self, unet, prompts)

    monkeypatch.setattr(sampling.Sampler, "draw", noted)
    found = make()
    assert found.drawn(0) == paths
    assert drawn == [found.prompts[5]]
    assert [path.read_bytes() for path in paths] == content
    assert "is damaged; drawn again" in capsys.readouterr().out


def test_the_order_of_the_prompts_decides_nothing(make, tmp_path):
    found = make()
    captions = [prompt.caption for prompt in found.prompts]
    file = tmp_path / "turned.txt"
    file.write_text("\n".join(reversed(captions)))
    turned = make(prompts=str(file))
    assert [prompt.key for prompt in turned.prompts] == [key_of(c) for c in reversed(captions)]
    assert turned.drawn(0) == found.drawn(0)[::-1]
    one, other = everything(found), everything(turned)
    for name in one:
        assert one[name].value == pytest.approx(other[name].value, rel=1e-4, abs=1e-6), name
        assert one[name].low == pytest.approx(other[name].low, rel=1e-4, abs=1e-6), name


def test_too_few_prompts_are_no_interval(make):
    found = make(items=31)
    for metric in everything(found).values():
        assert metric.value is None
        assert metric.reason.startswith("only 31 groups of pictures")
    assert len(found.result(2).pictures) == 8


def test_the_report_gets_every_checkpoint_and_some_pictures(make):
    found = make()
    result = found.result(2)
    assert [point.step for point in result.points] == [0, 1, 2]
    assert [point.loss for point in result.points] == [found.change(row) for row in (0, 1, 2)]
    assert [picture.caption for picture in result.pictures][:2] == ["chair", "black cat"]
    for picture in result.pictures:
        assert picture.files.keys() == {"base", "step-00000002"}
        for name in picture.files.values():
            assert name.startswith("retention/")
            assert (found._folder / name).is_file()
    assert found.result(0).pictures[0].files.keys() == {"base"}


def test_of_the_bases_data_only_what_was_not_trained_on_is_measured(make, model, tmp_path):
    """Pictures are equal where their numbers are: val of ``photos`` is 30 ... 79, and 30 ... 39 were trained on."""
    curate(tmp_path / "judged" / "curate", {"train": 40, "val": 4})
    curate(tmp_path / "photos" / "curate", {"train": 30, "val": 50})
    found = make(run="photos", items=64)
    items = found._base_data
    assert items is not None
    assert len(items) == 40
    assert {int(key.removeprefix("val-")) for key in items.keys} == set(range(10, 50))
    assert set(items.groups) == {f"group-{number}" for number in range(40, 80)}
    change = found.change_on_data(2)
    cells = HeldoutGrid(bins=4, draws=1)
    base, later = (
        grid_losses(model, found._run.unet_at(row), items, cells, 64)
        for row in (None, found.rows[2])
    )
    assert change.value == pytest.approx((relative(later, base) - relative(base, base)).mean())
    assert (change.groups, change.on) == (40, "pictures of photos")
    assert found.change_on_data(0).value == 0.0
    fewer = make(run="photos", items=33)._base_data
    assert fewer is not None
    assert len(fewer) == 33


def test_the_bases_data_are_not_measured_where_all_were_trained_on(make, tmp_path):
    curate(tmp_path / "judged" / "curate", {"train": 60, "val": 4})
    curate(tmp_path / "photos" / "curate", {"val": 50})
    metric = make(run="photos").change_on_data(2)
    assert metric.value is None
    assert metric.reason == "all pictures of retention.run=photos were trained on"
    none = make().change_on_data(2)
    assert "names no run" in none.reason
    assert missing({"retention_data_change": none}) == {}  # nobody misses it


def test_zero_items_leave_it_out():
    from evaluate.evaluation import Evaluation
    from evaluate.evaluators.retention import EVALUATOR

    asked: Any = SimpleNamespace(retention=RetentionConfig(items=0))
    evaluation = Evaluation.__new__(Evaluation)
    evaluation.config = asked
    assert evaluation.retention is None
    found = dict(EVALUATOR.measure(evaluation))
    assert found.keys() == EVALUATOR.metrics.keys()
    assert {metric.reason for metric in found.values()} == {"left out by retention.items=0"}


def test_latents_do_not_depend_on_the_other_pictures(make, model):
    paths = make().drawn(0)
    together, alone = encode(model, paths), torch.cat([encode(model, [path]) for path in paths])
    assert np.array_equal(together.numpy(), alone.numpy())
