"""Full fine-tuning: every weight is trained, of the U-Net and, if asked, of text encoders; exports a whole pipeline."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.files import read_json
from curate.run.schema import UserError, check
from finetune.methods.interface import (
    UNET,
    Method,
    fitting,
    flat_text_name,
    register_method,
    text_name,
    weights_of,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion
    from finetune.models.original.families import Family

# In fp32, whole or in parts; those of text encoders begin with the second word.
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
_TEXT = ("text_encoder", "text_encoder_2")
_SCHEDULER = "scheduler/scheduler_config.json"
SINGLE_FILE = "original.safetensors"  # in an export: the whole pipeline in one file
_BYTES = {"fp16": 2, "fp32": 4, "no": 0}  # of a number, by the precisions of the second layout
_FREE = ("sample_size",)  # of a U-Net's settings: changes nothing that it computes
_OTHERWISE = "A full training starts with a pipeline of the same architecture as its base; choose model= and method.init alike"


@register_method
@dataclass
class Full(Method):
    """Every weight of the U-Net, and of the text encoders where they are trained.

    Attributes:
        original_layout: precision of the export's second layout, one file for web interfaces; ``no`` leaves it out. Only
            Stable Diffusion 1, 2 and XL have one.
    """

    retains: ClassVar[bool] = True
    kept_states: ClassVar[int | None] = 2  # one more than resuming needs: the last may be damaged
    name: str = "full"
    original_layout: str = "fp16"

    def __post_init__(self) -> None:
        known = self.original_layout in _BYTES
        check(known, "method.original_layout", self.original_layout, ", ".join(_BYTES))

    def attach(self, unet: UNet2DConditionModel, pixels_per_latent: int) -> None:
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

    def attach_text(self, encoder: nn.Module, unread: Sequence[str]) -> None:
        """Unfreeze everything that the U-Net is given something of."""
        beginnings = tuple(f"{module}." for module in unread)
        for name, weight in encoder.named_parameters():
            weight.requires_grad_(not flat_text_name(name).startswith(beginnings))

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write a pipeline folder, which ``from_pretrained`` loads."""
        model.pipeline().save_pretrained(folder, safe_serialization=True)

    def save_for_others(
        self,
        model: LatentDiffusion,
        config: ModelConfig,
        folder: Path,
        name: str,
        trigger: str = "",
    ) -> None:
        """Write ``original.safetensors`` into the folder.

        A warning says where it would hold other weights than those in memory, and it is left out.
        """
        if self.original_layout != "no":
            _save_single_file(model, folder, self.original_layout, trigger)

    def export_bytes(self, model: LatentDiffusion) -> int:
        """A whole pipeline in fp32, and once more in one file where its architecture has that."""
        from torch import nn

        parts = [
            part for part in model.pipeline().components.values() if isinstance(part, nn.Module)
        ]
        count = sum(weight.numel() for part in parts for weight in part.parameters())
        second = _BYTES[self.original_layout] if _family(model) else 0
        return count * (_BYTES["fp32"] + second)

    def load(self, config: ModelConfig, folder: Path) -> DiffusionPipeline:
        """The pipeline in ``folder``."""
        from finetune.models import load_pipeline

        folders = {"path": str(folder), "revision": None, "variant": None, "config": None}
        return load_pipeline(replace(config, **folders))

    def files(self, folder: Path) -> list[Path]:
        """The U-Net's weights, and those of text encoders where they are trained."""
        unet = _weights_in(folder / UNET)
        texts = [path for part in _TEXT for path in _weights_in(folder / part)]
        return [*unet, *texts] if unet and self.text_encoder else unet

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """The pipeline has to say its architecture; whether it is the base's, :meth:`starting_weights` sees.

        Raises:
            UserError: it does not, or has no text encoder to train.
        """
        if self.text_encoder and not _weights_in(folder / _TEXT[0]):
            raise UserError(
                f"{option}: {folder} has no weights of a text encoder, which method.text_encoder=true trains; take a "
                "whole pipeline, or remove method.text_encoder=true"
            )
        for path in (folder / "unet" / "config.json", folder / _SCHEDULER):
            if read_json(path) is None:
                raise UserError(
                    f"{option}: {path} is not there, or damaged; copy the pipeline again"
                )

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """The weights in the pipeline ``folder``.

        Raises:
            UserError: the U-Net's architecture, or what it predicts, is not the base's; or the text encoders are not,
                and are not trained.
        """
        refuse_other_architecture(folder, model.unet.config, option)
        theirs = (read_json(folder / _SCHEDULER) or {}).get("prediction_type", "epsilon")
        if theirs != model.schedule.prediction_type:
            raise UserError(
                f"{option} predicts {theirs}, and the base {model.schedule.prediction_type}. {_OTHERWISE}"
            )
        found = _read(folder, UNET)
        texts = {name: w for part in model.text_encoders for name, w in _read(folder, part).items()}
        if not self.text_encoder:
            _refuse_other_texts(model, texts, option)
            return fitting(found, self.trained(model), option, _OTHERWISE)
        for part, encoder in model.text_encoders.items():
            refuse_other_text_encoder(folder, part, encoder.config, option)
        wanted = self.trained(model)
        kept = {name for name in weights_of(self.networks(model)) if name not in wanted}
        known = {name: weight for name, weight in texts.items() if name not in kept}
        return fitting(found | known, wanted, option, _OTHERWISE)


def _weights_in(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    return [path for path in found if _WEIGHTS.fullmatch(path.name)]


def _read(folder: Path, part: str) -> dict[str, Tensor]:
    """The weights of a pipeline's network, by the names of checkpoints."""
    from safetensors.torch import load_file

    stored = {name: w for path in _weights_in(folder / part) for name, w in load_file(path).items()}
    if part == UNET:
        return stored
    numbers = {name: w for name, w in stored.items() if not name.endswith(".position_ids")}
    return {f"{part}.{text_name(name)}": weight for name, weight in numbers.items()}


def _refuse_other_texts(model: LatentDiffusion, found: Mapping[str, Tensor], option: str) -> None:
    """Refuse a U-Net that was trained behind other text encoders than the base's, which would stay.

    Raises:
        UserError: says what to type.
    """
    base = weights_of(model.text_encoders)
    for name, weight in found.items():
        if name in base and not weight.equal(base[name].detach().cpu().to(weight.dtype)):
            raise UserError(
                f"{option} has another text encoder than the base (its {name} differs), without which its U-Net "
                "computes something else; type method.text_encoder=true"
            )


def _family(model: LatentDiffusion) -> Family | None:
    """Whose layout of one file a model has; None where programs know none for it."""
    from finetune.models.original import families, writer

    known = model.schedule.prediction_type in writer.PREDICTIONS
    return families.family_of(model.unet.config) if known else None


def _save_single_file(model: LatentDiffusion, folder: Path, precision: str, trigger: str) -> None:
    """Write the pipeline as one file, if programs know its architecture and what it predicts, and read it again."""
    import torch

    from finetune.models.original import writer

    if (family := _family(model)) is None:
        return
    pipeline = model.pipeline()
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    problem = ""
    try:
        writer.write(folder / SINGLE_FILE, pipeline, family, model.resolution, dtype, trigger)
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


def refuse_other_text_encoder(folder: Path, part: str, base: Any, option: str) -> None:
    """The same for a text encoder; what its weights' shapes say, they say themselves.

    Args:
        folder: of the pipeline. part: the encoder's name in it.
        base: the settings of the base's encoder. option: that named the folder.
    """
    settings = read_json(folder / part / "config.json") or {}
    for name in ("hidden_act", "num_attention_heads", "layer_norm_eps"):
        theirs, ours = settings.get(name), getattr(base, name, None)
        if theirs is not None and theirs != ours:
            raise UserError(
                f"{option}: its {part} has {name}={theirs}, and that of the base {ours}. {_OTHERWISE}"
            )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
