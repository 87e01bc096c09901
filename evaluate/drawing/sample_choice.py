"""Which checkpoints and scales ``evaluate.sample`` draws, found before anything heavy loads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from curate.run.files import read_json
from curate.run.next_command import COMMANDS, run_arguments
from curate.run.provenance import read_config
from curate.run.schema import UserError
from evaluate.results import label_of
from evaluate.sample_config import SampleConfig
from finetune.methods import METHODS


@dataclass(frozen=True)
class Choice:
    """A column of models: a checkpoint, and how much of its LoRA is added.

    Attributes:
        step: updates made; 0 is the base.
        scale: a factor; 1 is as trained.
    """

    step: int
    scale: float = 1.0

    @property
    def folder(self) -> str:
        """The name of the folder that its pictures are in."""
        scaled = "" if self.scale == 1 else f"-scale-{self.scale:g}"
        return f"{label_of(self.step)}{scaled}"

    def label(self, with_scale: bool) -> str:
        """The head of its column."""
        if not self.step:
            return "base"
        return f"step {self.step}" + (f"\nLoRA × {self.scale:g}" if with_scale else "")


def choices(config: SampleConfig) -> list[Choice]:
    """The columns, in the order in which they were typed, each once.

    Raises:
        UserError: a checkpoint is not there, or the run has no LoRA to scale.
    """
    if config.model is not None:
        return _of_base(config)
    run_dir = config.run.folder
    steps = [step for name in config.checkpoints for step in _steps(name, run_dir)]
    if config.lora_scale != [1.0]:
        _refuse_unscalable(run_dir)
    found = [
        Choice(step, scale) for step in steps for scale in (config.lora_scale if step else [1.0])
    ]
    return list(dict.fromkeys(found))


def _of_base(config: SampleConfig) -> list[Choice]:
    """A base model without a run has one column."""
    if config.checkpoints not in (["exported"], ["base"]):  # the default, and what it means here
        raise UserError(
            "checkpoints are of a run, and model= draws from a base model without one. To compare a run with its "
            "base, type run.name=NAME checkpoints=[base,exported] without model="
        )
    if config.lora_scale != [1.0]:
        raise UserError(
            "lora_scale is of a run, and model= draws from a base model; remove lora_scale"
        )
    return [Choice(0)]


def _refuse_unscalable(run_dir: Path) -> None:
    method = read_config(run_dir / "finetune" / "config.yaml").get("method")
    name = method.get("name") if isinstance(method, dict) else None
    kind = METHODS.get(str(name))
    if kind is not None and not kind.scalable:
        raise UserError(
            f"lora_scale is for LoRA, and {run_dir} was trained with method={name}, which "
            f"{'changes the weights themselves' if name == 'full' else 'has no such scale'}; remove lora_scale"
        )


def present(run_dir: Path) -> list[int]:
    """The steps of a run's checkpoints, sorted."""
    folder = run_dir / "finetune" / "checkpoints"
    names = [re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")]
    return sorted(int(found[1]) for found in names if found)


def _steps(name: int | str, run_dir: Path) -> list[int]:
    """The steps that an entry of ``checkpoints`` means; 0 is the base."""
    steps, folder = present(run_dir), run_dir / "finetune" / "checkpoints"
    if name == "base":
        return [0]
    if name == "all":
        return [0, *steps]
    if name == "kept":
        return [_kept(run_dir, steps)]
    if name in ("exported", "last"):
        link = folder / ("best" if name == "exported" else "last")
        found = re.fullmatch(r"step-(\d+)", link.readlink().name) if link.is_symlink() else None
        if found is None or int(found[1]) not in steps:
            raise UserError(
                _absent(f"checkpoints={name}: {link} does not name a checkpoint", steps)
            )
        return [int(found[1])]
    if name not in steps:
        raise UserError(_absent(f"{run_dir} has no checkpoint of step {name}", steps))
    return [int(name)]


def _kept(run_dir: Path, steps: list[int]) -> int:
    """The one that the evaluation said to keep; 0 for the base."""
    verdict = (read_json(run_dir / "evaluate" / "report.json") or {}).get("verdict")
    kept = verdict.get("kept") if isinstance(verdict, dict) else None
    if not isinstance(kept, int):
        raise UserError(
            f"checkpoints=kept is what the evaluation says to keep, and {run_dir} has none that can be read; type "
            f"first: {COMMANDS['evaluate']} {run_arguments(run_dir)}, or checkpoints=exported"
        )
    if kept and kept not in steps:
        raise UserError(
            _absent(
                f"the evaluation says to keep step {kept}, which {run_dir} has no longer", steps
            )
        )
    return kept


def _absent(said: str, steps: list[int]) -> str:
    listed = ", ".join(["base", *map(str, steps)])
    return f"{said}; it holds: {listed}. Type checkpoints={steps[-1] if steps else 'base'}"
