"""DoRA: a LoRA of the weights' directions, and a trained length of each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.methods.interface import register_method
from finetune.methods.lora import Lora

if TYPE_CHECKING:
    from torch import nn


_HOOK = "_rescaled"  # where a layer keeps the handle of its hook


@register_method
@dataclass
class Dora(Lora):
    """Magnitude and direction apart (Liu et al. 2024): m * (W + alpha / rank * B A) / |W + alpha / rank * B A|.

    The norm is over each output's weights, and m starts as the base model's.
    """

    noun: ClassVar[str] = "DoRA"
    fixed: ClassVar[dict[str, Any]] = {"init_lora_weights": "gaussian", "use_dora": True}
    name: str = "dora"

    def header(self) -> dict[str, str]:
        """It is LyCORIS that defines DoRA in kohya's layout."""
        arguments = {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}
        return {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps(arguments)}

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """W + factor * (W' - W), as web interfaces have it.

        The scale of B A alone would leave the magnitudes as they were trained: 0 would not be the base model.
        """
        from peft.tuners.lora import LoraLayer

        for layer in unet.modules():
            if isinstance(layer, LoraLayer):
                if former := vars(layer).pop(_HOOK, None):
                    former.remove()
                if factor != 1:
                    hook = layer.register_forward_hook(_Between(factor), with_kwargs=True)
                    vars(layer)[_HOOK] = hook


class _Between:
    """A forward hook: the output between that of the base layer and the adapter's."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(
        self, layer: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        base = layer.base_layer(*inputs, **named)
        return base + self.factor * (output - base)
