"""DoRA: a LoRA of the weights' directions, and a trained length of each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.methods.adapters.adapter import ADAPTER
from finetune.methods.interface import register_method
from finetune.methods.lora import Lora

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn


_PARTS = ("lora_A", "lora_B", "lora_magnitude_vector")
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

    def add(self, network: Any, key: str, without: Sequence[str]) -> None:
        """With norms of convolutions that are computed in fp32, in whatever the kernels are held.

        Raises:
            UserError: as of all adapters.
        """
        from peft.tuners.lora.dora import DoraConv2dLayer

        super().add(network, key, without)
        for part in network.modules():
            if type(part) is DoraConv2dLayer:
                part.__class__ = _norm_in_fp32()  # type: ignore[assignment]

    def header(self) -> dict[str, str]:
        """It is LyCORIS that defines DoRA in kohya's layout."""
        arguments = {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}
        return {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps(arguments)}

    def scaled(
        self,
        unet: nn.Module,
        values: Mapping[str, Tensor],
        factor: float,
        base: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Another DoRA of the same rank, which computes exactly the weights in between.

        With d = m / |W + B A|, by output, the trained weight is d (W + B A), and the one in between
        (1 - f) W + f d (W + B A) = c (W + (f d / c) B A) with c = 1 - f + f d: its B is (f d / c) B, and its
        magnitude c |W + (f d / c) B A|.
        """
        import torch
        from peft.tuners.lora import LoraLayer

        if factor == 1:
            return dict(values)
        found = dict(values)
        for name, layer in unet.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            down, up, size = (f"{name}.{part}.{ADAPTER}.weight" for part in _PARTS)
            weight = layer.get_base_layer().weight.detach().to(values[up])  # type: ignore[union-attr, arg-type]
            weight = weight.flatten(1)  # type: ignore[operator]
            added = layer.scaling[ADAPTER] * values[up].flatten(1) @ values[down].flatten(1)
            share = values[size].flatten() / torch.linalg.norm(weight + added, dim=1)
            kept = 1 - factor + factor * share
            less = (factor * share / kept)[:, None]
            magnitude = kept * torch.linalg.norm(weight + less * added, dim=1)
            found[up] = (less * values[up].flatten(1)).reshape(values[up].shape)
            found[size] = magnitude.reshape(values[size].shape)
        return found

    def update_of(self, layer: Any) -> Tensor:
        """Of magnitude and direction."""
        import torch

        base = layer.get_base_layer().weight.detach().float()
        moved = (base + layer.get_delta_weight(ADAPTER)).flatten(1)
        magnitude = layer.lora_magnitude_vector[ADAPTER].weight.flatten()
        length = torch.linalg.norm(moved, dim=1)
        return (magnitude / length)[:, None] * moved - base.flatten(1)

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


@cache
def _norm_in_fp32() -> type[nn.Module]:
    """peft's own adds a kernel as it is held, which torch does not do with 8 bits; of linear layers it converts them."""
    from peft.tuners.lora.dora import DoraConv2dLayer

    class Magnitudes(DoraConv2dLayer):
        def get_weight_norm(self, weight: Tensor, *given: Any, **named: Any) -> Tensor:
            return super().get_weight_norm(weight.float(), *given, **named)

    return Magnitudes


class _Between:
    """A forward hook: the output between that of the base layer and the adapter's."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(
        self, layer: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        base = layer.base_layer(*inputs, **named)
        return base + self.factor * (output - base)
