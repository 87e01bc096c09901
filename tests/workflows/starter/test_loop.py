"""The starter models' training loop: resuming, averaging and errors, on small models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from workflows.starter import checkpoint
from workflows.starter.loop import TrainingState, train
from workflows.starter.recipe import Recipe

RECIPE = Recipe(
    steps=4, batch_size=8, learning_rate=1e-2, warmup_steps=2, measure_every=2, seed=5
)  # fmt: skip
INPUTS = {"pictures.npz": "a" * 64, "vae/checkpoint.safetensors": "b" * 64}


class Sine:
    """Learns sin(x) from new random inputs at each step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
        self.killed_at = -1
        self.calls = 0

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": [*self.model[0].parameters(), *self.model[1].parameters()]},
            {"params": list(self.model[3].parameters()), "lr_scale": 10.0},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        x = torch.randn((RECIPE.batch_size, 1), generator=generator)
        return (self.model(x) - x.sin()).square().mean()

    def measure(self, model: nn.Module) -> dict[str, float]:
        return {"at_zero": model(torch.zeros(1, 1)).item()}


def test_an_interrupted_run_resumes_to_identical_weights(tmp_path: Path) -> None:
    train(Sine(), RECIPE, tmp_path / "whole", INPUTS)
    cut = Sine()
    cut.killed_at = 4  # after the checkpoint of step 2
    with pytest.raises(KeyboardInterrupt):
        train(cut, RECIPE, tmp_path / "cut", INPUTS)
    train(Sine(), RECIPE, tmp_path / "cut", INPUTS)
    whole = load_file(tmp_path / "whole" / checkpoint.NAME)
    resumed = load_file(tmp_path / "cut" / checkpoint.NAME)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [2, 4]


def test_rows_logged_after_the_last_checkpoint_are_removed(tmp_path: Path) -> None:
    train(Sine(), replace(RECIPE, steps=2), tmp_path, INPUTS)
    log = tmp_path / "metrics.jsonl"
    logged = log.read_text()
    log.write_text(logged + '{"step": 3, "loss": 1}\n{"step": 4, "lo')  # an incomplete line
    train(Sine(), replace(RECIPE, steps=2), tmp_path, INPUTS)
    assert log.read_text() == logged


def test_metrics_and_exports_use_the_average(tmp_path: Path) -> None:
    task = Sine()
    train(task, RECIPE, tmp_path, INPUTS)
    trained = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.model.load_state_dict(checkpoint.ema_weights(tmp_path / checkpoint.NAME))
    assert any(not torch.equal(trained[n], v) for n, v in task.model.state_dict().items())
    measured = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["at_zero"]
    assert measured == pytest.approx(task.model(torch.zeros(1, 1)).item())


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    recipe = Recipe(
        steps=8, batch_size=1, learning_rate=1.0, warmup_steps=2, cooldown_share=0.5
    )  # fmt: skip
    rates = [recipe.learning_rate_at(step) for step in range(recipe.steps + 1)]
    cooling = [1 - (k / 4) ** 0.5 for k in range(5)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, *cooling])


def test_a_longer_recipe_has_the_same_rates_until_the_cooldown() -> None:
    longer = replace(RECIPE, steps=100)
    cooldown_start = round(RECIPE.steps * (1 - RECIPE.cooldown_share))
    assert all(
        longer.learning_rate_at(k) == RECIPE.learning_rate_at(k) for k in range(cooldown_start + 1)
    )


def test_groups_keep_their_own_rate() -> None:
    task = Sine()
    state = TrainingState(task, RECIPE)
    state.update(task.loss(torch.Generator().manual_seed(0)))
    slow, fast = (group["lr"] for group in state.optimizer.param_groups)
    assert fast == pytest.approx(10 * slow) == pytest.approx(10 * RECIPE.learning_rate_at(0))


def test_the_average_in_closed_form() -> None:
    task = Sine()
    state = TrainingState(task, replace(RECIPE, ema_decay=0.15))
    seen = [task.model[0].weight.detach().clone()]
    for step in range(3):
        state.update(task.loss(torch.Generator().manual_seed(step)))
        seen.append(task.model[0].weight.detach().clone())
    expected = seen[0]
    for decay, weight in zip((1 / 10, 0.15, 0.15), seen[1:], strict=True):  # 2 / 11 is above 0.15
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(state.ema["0.weight"], expected)


def test_batch_statistics_are_learned_in_training_and_used_in_measuring(tmp_path: Path) -> None:
    modes = []

    class Watched(Sine):
        def loss(self, generator: torch.Generator) -> Tensor:
            modes.append(("loss", self.model.training))
            return super().loss(generator)

        def measure(self, model: nn.Module) -> dict[str, float]:
            modes.append(("measure", model.training))
            return super().measure(model)

    train(Watched(), RECIPE, tmp_path, INPUTS)
    steps = [("loss", True), ("loss", True), ("measure", False)]
    assert modes == steps * 2


def test_gradients_are_clipped_to_one() -> None:
    task = Sine()
    state = TrainingState(task, RECIPE)
    state.update(1e6 * task.loss(torch.Generator().manual_seed(0)))
    norms = torch.stack([p.grad.norm() for p in state.parameters() if p.grad is not None])
    assert norms.norm().item() == pytest.approx(1.0, rel=1e-3)


def test_a_gradient_that_is_not_finite_is_never_saved() -> None:
    task = Sine()
    state = TrainingState(task, RECIPE)
    before = task.model[0].weight.detach().clone()
    inputs = torch.zeros((2, 1), requires_grad=True)
    with pytest.raises(RuntimeError, match="non-finite"):
        state.update((task.model(inputs) * 0).sqrt().sum())  # 0, with an infinite gradient
    assert torch.equal(task.model[0].weight, before)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    state = TrainingState(Sine(), RECIPE)
    with pytest.raises(FloatingPointError, match="step 0"):
        state.update(torch.tensor(float("nan"), requires_grad=True))


class Blur(Sine):
    """A convolution with channels-last weights, like the CLIP's."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def parameter_groups(self) -> list[dict]:
        return [{"params": list(self.model.parameters())}]

    def loss(self, generator: torch.Generator) -> Tensor:
        return self.model(torch.randn((2, 3, 8, 8), generator=generator)).square().mean()


def test_optimizer_moments_are_restored_for_channels_last_weights(tmp_path: Path) -> None:
    def step(state: TrainingState, task: Blur) -> None:
        state.update(task.loss(torch.Generator().manual_seed(state.step)))

    whole, cut, resumed = Blur(), Blur(), Blur()
    states = [TrainingState(task, RECIPE) for task in (whole, cut, resumed)]
    for _ in range(6):
        step(states[0], whole)
    for _ in range(3):
        step(states[1], cut)
    states[1].save(tmp_path / checkpoint.NAME, INPUTS)
    states[2].load(tmp_path / checkpoint.NAME)
    for _ in range(3):
        step(states[2], resumed)
    assert torch.equal(resumed.model.weight, whole.model.weight)
