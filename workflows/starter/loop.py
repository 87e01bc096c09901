"""The training loop of the starter models: seeded by step, logged, and resumable after any kill.

The randomness of a step is a function of (seed, step) alone, so a checkpoint needs no generator
state and a resumed run computes what an uninterrupted one would have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from curate.command import UserError
from curate.files import atomic_write

MAX_GRAD_NORM = 1.0
STANDS_ON = "stands_on"  # the entry of a checkpoint's metadata


@dataclass(frozen=True)
class Recipe:
    """How long and how fast one starter model is trained.

    Attributes:
        steps: optimizer steps from start to end.
        batch_size: samples a step.
        learning_rate: after `warmup_steps` of linear rise.
        weight_decay: AdamW's.
        cooldown_share: the last part of the steps, in which the learning rate falls to zero.
        ema_decay: of the weights that are exported.
        measure_every: steps between measurements; a checkpoint is written with each.
        seed: of the initial weights, the batches and the noise.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    cooldown_share: float = 0.3
    ema_decay: float = 0.998
    measure_every: int = 100
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, then down to zero as 1 - sqrt over the last `cooldown_share`.

        The shape of Hägele et al. 2024 (sec. 4), which can be prolonged until it begins to cool.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        hot = round(self.steps * (1 - self.cooldown_share))
        if step < hot:
            return self.learning_rate
        return self.learning_rate * (1 - math.sqrt((step - hot) / (self.steps - hot)))


class Task(Protocol):
    """What a starter model brings to the loop."""

    model: nn.Module

    def parameter_groups(self) -> list[dict]:
        """AdamW parameter groups; `lr_scale` of a group multiplies the learning rate."""
        ...

    def loss(self, generator: torch.Generator) -> Tensor:
        """Scalar loss of one batch; all randomness from `generator`."""
        ...

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Figures on data that is never trained on."""
        ...


class TrainingState:
    """Model, its moving average and optimizer, saved together as one safetensors file."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        self.recipe = recipe
        self.model = task.model
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            task.parameter_groups(),
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.step = 0

    def parameters(self) -> Iterable[nn.Parameter]:
        """Trainable parameters in the optimizer's order."""
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def update(self, loss: Tensor) -> None:
        """One optimizer step on `loss`, then one of the moving average.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step) * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.step += 1
        # A short average at first: the initial weights know little (as in Karras et al. 2024, sec. 3).
        decay = min(self.recipe.ema_decay, self.step / (self.step + 9))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value.detach(), 1 - decay)

    def save(self, path: Path, made_from: Mapping[str, str]) -> None:
        """Write everything to `path`, atomically, and what it was `made_from` (see `train`)."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": value for name, value in self.ema.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        with atomic_write(path) as stream:
            stream.write(save(tensors, {"step": str(self.step), STANDS_ON: json.dumps(made_from)}))

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        model: dict[str, Tensor] = {}
        optimizer: dict[int, dict[str, Tensor]] = {}
        with safe_open(path, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            for key in file.keys():  # noqa: SIM118 (a safetensors file is no dict)
                kind, _, name = key.partition("/")
                if kind == "model":
                    model[name] = file.get_tensor(key)
                elif kind == "ema":
                    self.ema[name].copy_(file.get_tensor(key))
                else:
                    index, _, field = name.partition("/")
                    optimizer.setdefault(int(index), {})[field] = file.get_tensor(key)
        self.model.load_state_dict(model)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        for parameter, state in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # fused AdamW goes through memory, not by index
                state[name] = torch.empty_like(parameter).copy_(state[name])


def stands_on(checkpoint: Path) -> dict[str, str]:
    """Sha256 of each file that a checkpoint's task was made from, by name."""
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()[STANDS_ON])


def check_same(checkpoint: Path, now: Mapping[str, str]) -> None:
    """Raise a `UserError` if a checkpoint stands on other files than there are ``now``."""
    then = stands_on(checkpoint)
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{checkpoint} was trained on another {', '.join(changed)} than there is now; delete "
            f"{checkpoint.parent} to train it anew"
        )


def load_ema(model: nn.Module, path: Path) -> int:
    """Load the moving average of a checkpoint into `model`; returns the checkpoint's step."""
    with safe_open(path, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith("ema/")]  # noqa: SIM118
        model.load_state_dict({name.removeprefix("ema/"): file.get_tensor(name) for name in names})
        return int(file.metadata()["step"])


def train(task: Task, recipe: Recipe, folder: Path, made_from: Mapping[str, str]) -> None:
    """Train to `recipe.steps`, continuing from `folder/checkpoint.safetensors` if there is one.

    Figures are appended to `folder/metrics.jsonl` whenever a checkpoint is written. `made_from` is the
    sha256 of each file that the task was made from, by name.

    Raises:
        UserError: the checkpoint was trained on other files.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    state = TrainingState(task, recipe)
    if checkpoint.exists():
        check_same(checkpoint, made_from)
        state.load(checkpoint)
    device = next(task.model.parameters()).device
    bar = tqdm(total=recipe.steps, initial=state.step, desc=folder.name, mininterval=20, ncols=100)
    losses: list[float] = []
    while state.step < recipe.steps:
        generator = torch.Generator(device).manual_seed(recipe.seed * 10**9 + state.step)
        task.model.train()
        loss = task.loss(generator)
        state.update(loss)
        losses.append(loss.item())
        bar.update()
        if state.step % recipe.measure_every == 0 or state.step == recipe.steps:
            figures = _measure_ema(task, state)
            row = {"step": state.step, "loss": sum(losses) / len(losses), **figures}
            losses.clear()
            bar.write(json.dumps({key: round(value, 4) for key, value in row.items()}))
            with (folder / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            state.save(checkpoint, made_from)  # last: what is cut before is measured again
    bar.close()


@torch.inference_mode()
def _measure_ema(task: Task, state: TrainingState) -> dict[str, float]:
    """Figures of the moving average; the trained weights are put back afterwards."""
    trained = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema)
    state.model.eval()
    figures = task.measure(state.model)
    state.model.load_state_dict(trained)
    return figures
