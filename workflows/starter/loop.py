"""The training loop of the starter models: seeded by step, logged, resumable after a kill.

A step's randomness depends only on (seed, step), so a checkpoint needs no generator state. On a CPU
with the same number of threads a resumed run gives the same weights as an uninterrupted one. (On CUDA
some sums have no fixed order.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from curate.run.files import atomic_write
from workflows.starter import checkpoint
from workflows.starter.recipe import Recipe

MAX_GRAD_NORM = 1.0


class Task(Protocol):
    """A model with its training loss and its metrics."""

    model: nn.Module

    def parameter_groups(self) -> list[dict]:
        """AdamW parameter groups; `lr_scale` of a group multiplies the learning rate."""
        ...

    def loss(self, generator: torch.Generator) -> Tensor:
        """Scalar loss of one batch; all randomness comes from `generator`."""
        ...

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Metrics on held-out data."""
        ...


class TrainingState:
    """Model, its moving average (EMA) and optimizer, saved together as one safetensors file."""

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
        """Trainable parameters, in the optimizer's order."""
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def update(self, loss: Tensor) -> None:
        """One optimizer step on `loss`, then update the moving average.

        Raises:
            FloatingPointError: the loss is not finite.
            RuntimeError: the gradient is not finite.
        """
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step) * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRAD_NORM, error_if_nonfinite=True)
        self.optimizer.step()
        self.step += 1
        # A short average at first, to forget the initial weights (as in Karras et al. 2024, sec. 3).
        decay = min(self.recipe.ema_decay, self.step / (self.step + 9))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value.detach(), 1 - decay)

    def save(self, path: Path, inputs: Mapping[str, str]) -> None:
        """Write a checkpoint to `path`, atomically; for `inputs` see `train`."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"{checkpoint.EMA_PREFIX}{name}": value for name, value in self.ema.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        with atomic_write(path) as stream:
            metadata = checkpoint.encode_metadata(self.step, self.recipe, inputs)
            stream.write(save(tensors, metadata))

    def load(self, path: Path) -> None:
        """Restore the state that `save` wrote."""
        model: dict[str, Tensor] = {}
        optimizer: dict[int, dict[str, Tensor]] = {}
        self.step = checkpoint.read_metadata(path).step
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (a safetensors file is not a dict)
                kind, _, name = key.partition("/")
                if kind == "model":
                    model[name] = file.get_tensor(key)
                elif key.startswith(checkpoint.EMA_PREFIX):
                    self.ema[name].copy_(file.get_tensor(key))
                else:
                    index, _, field = name.partition("/")
                    optimizer.setdefault(int(index), {})[field] = file.get_tensor(key)
        self.model.load_state_dict(model)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        for parameter, state in self.optimizer.state.items():
            # Fused AdamW needs moments in their parameter's memory layout.
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.empty_like(parameter).copy_(state[name])


def train(task: Task, recipe: Recipe, folder: Path, inputs: Mapping[str, str]) -> None:
    """Train to `recipe.steps`, resuming from the checkpoint in `folder` if there is one.

    Metrics are appended to `folder/metrics.jsonl` with each checkpoint. `inputs` has the sha256 of each
    file that the task reads, by name.

    Raises:
        UserError: the checkpoint has another recipe or inputs; see `checkpoint.check_resumable`.
    """
    from curate.run.progress import Bar

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / checkpoint.NAME
    state = TrainingState(task, recipe)
    if path.exists():
        checkpoint.check_resumable(path, recipe, inputs)
        state.load(path)
    log = folder / "metrics.jsonl"
    _cut_log(log, state.step)
    device = next(task.model.parameters()).device
    bar = Bar(total=recipe.steps, initial=state.step, desc=folder.name, mininterval=20, ncols=100)
    losses: list[float] = []
    while state.step < recipe.steps:
        generator = torch.Generator(device).manual_seed(recipe.seed * 10**9 + state.step)
        task.model.train()
        loss = task.loss(generator)
        state.update(loss)
        losses.append(loss.item())
        bar.update()
        if state.step % recipe.measure_every == 0 or state.step == recipe.steps:
            metrics = _measure_ema(task, state)
            row = {"step": state.step, "loss": sum(losses) / len(losses), **metrics}
            losses.clear()
            bar.write(json.dumps({key: round(value, 4) for key, value in row.items()}))
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            state.save(path, inputs)  # last: after a kill before it, the steps are repeated
    bar.close()


def _cut_log(log: Path, step: int) -> None:
    """Remove the rows that a killed run logged after its last checkpoint, at ``step``."""
    lines = log.read_text().splitlines() if log.exists() else []
    with atomic_write(log) as stream:
        for line in lines:
            with suppress(ValueError):  # an incomplete line
                if json.loads(line)["step"] <= step:
                    stream.write(f"{line}\n".encode())


@torch.inference_mode()
def _measure_ema(task: Task, state: TrainingState) -> dict[str, float]:
    """Metrics of the moving average; the trained weights are restored afterwards."""
    trained = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema)
    state.model.eval()
    metrics = task.measure(state.model)
    state.model.load_state_dict(trained)
    return metrics
