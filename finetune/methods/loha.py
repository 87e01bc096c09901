"""LoHa: updates that are element-wise products of two low-rank matrices, so of a rank up to the square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.methods.adapters.peft_layout import PeftAdapter
from finetune.methods.interface import register_method

if TYPE_CHECKING:
    from collections.abc import Sequence


@register_method
@dataclass
class Loha(PeftAdapter):
    """W + alpha / rank * (A B) * (C D), element by element (Hyeon-Woo et al. 2022).

    Attributes:
        tucker: convolutions of more than 1 x 1 have two cores of their own.
    """

    noun: ClassVar[str] = "LoHa"
    linear: ClassVar[tuple[str, ...]] = ("hada_w2_a",)
    peft_type: ClassVar[str] = "LOHA"
    algorithm: ClassVar[str] = "loha"
    settings: ClassVar[dict[str, str]] = {
        "rank": "r",
        "alpha": "alpha",
        "tucker": "use_effective_conv2d",
    }
    name: str = "loha"
    tucker: bool = False

    @staticmethod
    def kind() -> type:
        """peft's LoHa."""
        from peft import LoHaConfig

        return LoHaConfig

    def arguments(self) -> dict[str, str]:
        """As LyCORIS names them."""
        return {"use_tucker": str(self.tucker)}

    def add(self, network: Any, key: str, without: Sequence[str]) -> None:
        """LyCORIS' start, to which published learning rates belong: C is zero, and A, B and D are normal.

        From peft's own start a weight of 320 x 320 moves 30 times less than LoRA's in 20 updates, from this 2 times more.

        Raises:
            UserError: as of all adapters.
        """
        from peft.tuners.loha import LoHaLayer
        from torch import nn

        super().add(network, key, without)
        for layer in network.modules():
            if isinstance(layer, LoHaLayer):
                for weights, deviation in (
                    (layer.hada_t1, 0.1),
                    (layer.hada_t2, 0.1),
                    (layer.hada_w1_b, 1.0),
                    (layer.hada_w1_a, 0.1),
                    (layer.hada_w2_b, 1.0),
                    (layer.hada_w2_a, 0.0),
                ):
                    for weight in weights.values():
                        nn.init.normal_(weight, std=deviation)
