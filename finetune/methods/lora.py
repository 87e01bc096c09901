"""LoRA: low-rank updates beside frozen weights, exported as a file of a few MB with its own alpha."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.schema import UserError, check
from finetune.methods.interface import Method, fitting, register_method

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

_FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it
_HEADER_KEY = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY, which imports torch
_PREFIX = "unet."  # of the weights' names in that file, and of the adapter's settings in its header
# Settings of an adapter that change what rank and alpha mean.
_UNKNOWN_SCALE = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")


@register_method
@dataclass
class Lora(Method):
    """Low-rank updates beside frozen weights (Hu et al. 2021): W + alpha / rank * B A.

    Attributes:
        rank: of the update.
        alpha: its scale; ``alpha == rank`` is a scale of one.
        targets: suffixes of the names of the U-Net's modules that get an update.
    """

    scalable: ClassVar[bool] = True
    name: str = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])

    def __post_init__(self) -> None:
        check(self.rank > 0, "method.rank", self.rank, "> 0")
        check(self.alpha > 0, "method.alpha", self.alpha, "> 0")
        check(len(self.targets) > 0, "method.targets", self.targets, "at least one module name")

    def attach(self, unet: UNet2DConditionModel) -> None:
        """B starts at zero and A at N(0, 1/rank), so the first forward pass is the base model's.

        Raises:
            UserError: the U-Net has no modules of the names ``targets``.
        """
        from peft import LoraConfig

        adapter = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides; a float is right
            init_lora_weights="gaussian",
            target_modules=list(self.targets),
        )
        try:
            unet.add_adapter(adapter)
        except ValueError as error:  # no module of the U-Net has such a name
            raise UserError(
                f"method.targets={list(self.targets)} does not fit the model: {error}"
            ) from error

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """W + factor * alpha / rank * B A."""
        from peft.tuners.lora import LoraLayer

        for layer in unet.modules():
            if isinstance(layer, LoraLayer):
                for name in layer.active_adapters:
                    layer.set_scale(name, factor)

    def fewer_weights(self) -> str:
        """Half the rank."""
        return f"method.rank={max(self.rank // 2, 1)}"

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which ``load_lora_weights`` loads.

        The adapter's own configuration is in its header: rank alone does not tell alpha.
        """
        from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
        from diffusers.training_utils import _collate_lora_metadata
        from peft import get_peft_model_state_dict

        metadata = _collate_lora_metadata({"unet": model.unet})["unet_lora_adapter_metadata"]
        adapter = {f"unet.{name}": _plain(value) for name, value in metadata.items()}
        header = {LORA_ADAPTER_METADATA_KEY: json.dumps(adapter, indent=2, sort_keys=True)}

        def write(weights: dict[str, Tensor], path: str) -> None:
            from safetensors.torch import save_file

            # One header key alone: two would be written in any order, and the bytes would not repeat.
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            save_file(tensors, path, metadata=header)

        # In peft's own names: diffusers' older ones exist for attention alone, and of a file that mixes
        # both its loader takes only the others.
        model.pipeline().save_lora_weights(
            folder, unet_lora_layers=get_peft_model_state_dict(model.unet), save_function=write
        )

    def load(self, config: ModelConfig, folder: Path) -> nn.Module:
        """The base model's U-Net with the adapter in ``folder``."""
        from finetune.models import load_pipeline

        pipeline = load_pipeline(config)
        logger = logging.getLogger("diffusers.loaders.lora_base")
        logger.disabled = True  # it warns that there are no text encoder weights
        try:
            pipeline.load_lora_weights(str(folder))
        finally:
            logger.disabled = False
        return pipeline.unet

    def files(self, folder: Path) -> list[Path]:
        """The adapter's."""
        return [folder / _FILE] if (folder / _FILE).is_file() else []

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """Rank, alpha and targets have to equal the export's.

        Raises:
            UserError: they do not, or the file does not say them.
        """
        adapter, names = _adapter_of(folder / _FILE, option)
        rank, alpha = adapter.get("r"), adapter.get("lora_alpha")
        if not isinstance(rank, int) or not isinstance(alpha, int | float):
            raise UserError(
                f"{option}: {folder / _FILE} does not say its rank and alpha in its header, as exports of training "
                "do, so that its scale is not known. Take the folder of an export, or remove method.init"
            )
        if strange := [name for name in _UNKNOWN_SCALE if adapter.get(name)]:
            raise UserError(
                f"{option}: {folder / _FILE} was made with {strange[0]}, which is not supported; remove method.init"
            )
        if (rank, float(alpha)) != (self.rank, float(self.alpha)):
            raise UserError(
                f"{option} is a LoRA of rank {rank} and alpha {alpha:g}, and the settings are method.rank={self.rank} "
                f"method.alpha={self.alpha:g}. A training goes on with the rank and alpha of what it starts with; type "
                f"method.rank={rank} method.alpha={alpha:g}"
            )
        self._refuse_other_targets(adapter, names, option)

    def _refuse_other_targets(self, adapter: dict[str, Any], names: list[str], option: str) -> None:
        known = adapter.get("target_modules")
        if isinstance(known, list) and set(known) == set(self.targets):
            return
        modules = {name.partition(".lora_")[0] for name in names}
        others = {m for m in modules if not any(_is_named(m, target) for target in self.targets)}
        unused = [t for t in self.targets if not any(_is_named(m, t) for m in modules)]
        if not others and not unused:
            return
        theirs = ",".join(known) if isinstance(known, list) else "..."
        odd = f"it has {min(others)}" if others else f"it has no module {unused[0]}"
        raise UserError(
            f"{option} trained other modules than method.targets=[{','.join(self.targets)}]: {odd}. A training goes "
            f"on with those of what it starts with; type 'method.targets=[{theirs}]', or the method= that it was "
            "trained by, such as method=lora or method=locon"
        )

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """The adapter's weights.

        Raises:
            UserError: they are of another U-Net.
        """
        from safetensors.torch import load_file

        stored = load_file(folder / _FILE)
        wanted = self.trainable(model.unet)
        # peft inserts the adapter's name, which is "default", behind lora_A and lora_B.
        names = {f"{_PREFIX}{name.replace('.default.', '.')}": name for name in wanted}
        found = {names.get(name, name): weight for name, weight in stored.items()}
        otherwise = "Take a LoRA of this base's architecture, or the base that it was trained on (model=...)"
        return fitting(found, wanted, option, otherwise)


def _adapter_of(path: Path, option: str) -> tuple[dict[str, Any], list[str]]:
    """The adapter's settings in a LoRA's header, {} where there are none, and the names of its weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            content = json.loads((file.metadata() or {}).get(_HEADER_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{option}: {path} cannot be read: {error}. Export it again: python -m finetune.export RUN step=best"
        ) from error
    settings = content if isinstance(content, dict) else {}
    start = len(_PREFIX)
    found = {name[start:]: value for name, value in settings.items() if name.startswith(_PREFIX)}
    return found, [name.removeprefix(_PREFIX) for name in names]


def _is_named(module: str, target: str) -> bool:
    """As peft takes the name of a target."""
    return module == target or module.endswith(f".{target}")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
