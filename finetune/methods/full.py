"""Full fine-tuning: every weight of the U-Net is trained, and the export is a whole pipeline, in two layouts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.files import read_json
from curate.run.schema import UserError, check
from finetune.methods.interface import Method, fitting, register_method

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion
    from finetune.models.original.families import Family

_WEIGHTS = re.compile(
    r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors"
)  # in fp32, whole or in parts
_SCHEDULER = "scheduler/scheduler_config.json"
SINGLE_FILE = "original.safetensors"  # in an export: the whole pipeline in one file
_BYTES = {"fp16": 2, "fp32": 4, "no": 0}  # of a number, by the precisions of the second layout
_FREE = ("sample_size",)  # of a U-Net's settings: changes nothing that it computes
_OTHERWISE = "A full training starts with a pipeline of the same architecture as its base; choose model= and method.init alike"


@register_method
@dataclass
class Full(Method):
    """Every weight of the U-Net.

    Attributes:
        original_layout: precision of the export's second layout, one file for web interfaces; ``no`` leaves it out. Only
            Stable Diffusion 1, 2 and XL have one.
    """

    kept_states: ClassVar[int | None] = 2  # one more than resuming needs: the last may be damaged
    name: str = "full"
    original_layout: str = "fp16"

    def __post_init__(self) -> None:
        known = self.original_layout in _BYTES
        check(known, "method.original_layout", self.original_layout, ", ".join(_BYTES))

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Unfreeze everything; there is nothing to initialise."""
        unet.requires_grad_(True)

    def scaled(
        self,
        unet: nn.Module,
        values: Mapping[str, Tensor],
        factor: float,
        base: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Between the base's weights and the trained ones, as WiSE-FT (Wortsman et al. 2022, eq. 1)."""
        if factor == 1:
            return dict(values)
        own = base()
        return {name: own[name].to(weight).lerp(weight, factor) for name, weight in values.items()}

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write a pipeline folder, which ``from_pretrained`` loads, and ``original.safetensors`` in it.

        A warning says where the latter would hold other weights than those in memory, and it is left out.
        """
        pipeline = model.pipeline()
        pipeline.save_pretrained(folder, safe_serialization=True)
        if self.original_layout != "no":
            _save_single_file(pipeline, model, folder, self.original_layout)

    def export_bytes(self, model: LatentDiffusion) -> int:
        """A whole pipeline in fp32, and once more in one file where its architecture has that."""
        from torch import nn

        parts = [
            part for part in model.pipeline().components.values() if isinstance(part, nn.Module)
        ]
        count = sum(weight.numel() for part in parts for weight in part.parameters())
        second = _BYTES[self.original_layout] if _family(model) else 0
        return count * (_BYTES["fp32"] + second)

    def load(self, config: ModelConfig, folder: Path) -> nn.Module:
        """The U-Net of the pipeline in ``folder``."""
        from finetune.models import load_pipeline

        folders = {"path": str(folder), "revision": None, "variant": None, "config": None}
        return load_pipeline(replace(config, **folders)).unet

    def files(self, folder: Path) -> list[Path]:
        """The U-Net's weights."""
        found = sorted((folder / "unet").glob("*.safetensors"))
        return [path for path in found if _WEIGHTS.fullmatch(path.name)]

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """The pipeline has to say its architecture; whether it is the base's, :meth:`starting_weights` sees.

        Raises:
            UserError: it does not.
        """
        for path in (folder / "unet" / "config.json", folder / _SCHEDULER):
            if read_json(path) is None:
                raise UserError(
                    f"{option}: {path} is not there, or damaged; copy the pipeline again"
                )

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """The U-Net's weights in the pipeline ``folder``.

        Raises:
            UserError: the U-Net's architecture, or what it predicts, is not the base's.
        """
        from safetensors.torch import load_file

        refuse_other_architecture(folder, model.unet.config, option)
        theirs = (read_json(folder / _SCHEDULER) or {}).get("prediction_type", "epsilon")
        if theirs != model.schedule.prediction_type:
            raise UserError(
                f"{option} predicts {theirs}, and the base {model.schedule.prediction_type}. {_OTHERWISE}"
            )
        found = {name: w for path in self.files(folder) for name, w in load_file(path).items()}
        return fitting(found, self.trainable(model.unet), option, _OTHERWISE)


def _family(model: LatentDiffusion) -> Family | None:
    """Whose layout of one file a model has; None where programs know none for it."""
    from finetune.models.original import families, writer

    known = model.schedule.prediction_type in writer.PREDICTIONS
    return families.family_of(model.unet.config) if known else None


def _save_single_file(pipeline: Any, model: LatentDiffusion, folder: Path, precision: str) -> None:
    """Write the pipeline as one file, if programs know its architecture and what it predicts, and read it again."""
    import torch

    from finetune.models.original import writer

    if (family := _family(model)) is None:
        return
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    problem = ""
    try:
        writer.write(folder / SINGLE_FILE, pipeline, family, model.resolution, dtype)
        if wrong := writer.differing(folder / SINGLE_FILE, pipeline, folder, dtype):
            problem = f"it held other values for {len(wrong)} weights, such as {wrong[0]}"
    except ValueError as error:
        problem = f"{error}; method.original_layout=fp32 would hold it"
    if problem:  # no reason to lose the folder, which is whole, after hours of training
        (folder / SINGLE_FILE).unlink(missing_ok=True)
        print(f"warning: the export has no {SINGLE_FILE}: {problem}", file=sys.stderr)


def refuse_other_architecture(folder: Path, base: Mapping[str, Any], option: str) -> None:
    """Refuse a pipeline whose U-Net would compute something else with the same weights.

    Args:
        folder: of the pipeline.
        base: the settings of the base's U-Net.
        option: that named the folder.

    Raises:
        UserError: names a setting that differs.
    """
    settings = read_json(folder / "unet" / "config.json") or {}
    for name, value in settings.items():
        if name.startswith("_") or name in _FREE or name not in base:
            continue
        if _plain(base[name]) != _plain(value):
            raise UserError(
                f"{option}: its U-Net has {name}={value}, and that of the base {base[name]}. {_OTHERWISE}"
            )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
