"""LoKr: updates that are Kronecker products of two small matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from curate.run.schema import check
from finetune.methods.adapters.peft_layout import PeftAdapter
from finetune.methods.interface import register_method


@register_method
@dataclass
class Lokr(PeftAdapter):
    """W + alpha / rank * (C kron B A), or C kron D where D is small enough (Yeh et al. 2024).

    Attributes:
        factor: of the sides of C, where it divides the weight's; -1 makes both matrices as alike as possible.
        decompose_both: C is a product of two matrices too.
        tucker: convolutions of more than 1 x 1 have a core of their own.
    """

    noun: ClassVar[str] = "LoKr"
    linear: ClassVar[tuple[str, ...]] = ("lokr_w1", "lokr_w1_a")
    peft_type: ClassVar[str] = "LOKR"
    algorithm: ClassVar[str] = "lokr"
    settings: ClassVar[dict[str, str]] = {
        "rank": "r",
        "alpha": "alpha",
        "factor": "decompose_factor",
        "decompose_both": "decompose_both",
        "tucker": "use_effective_conv2d",
    }
    # LyCORIS' start: what is multiplied last is zero. peft's own sets C to zero.
    fixed: ClassVar[dict[str, Any]] = {"init_weights": "lycoris"}
    name: str = "lokr"
    factor: int = -1
    decompose_both: bool = False
    tucker: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        sound = self.factor == -1 or self.factor > 0
        check(sound, "method.factor", self.factor, "-1, or > 0")

    @staticmethod
    def kind() -> type:
        """peft's LoKr."""
        from peft import LoKrConfig

        return LoKrConfig

    def arguments(self) -> dict[str, str]:
        """As LyCORIS names them."""
        return {
            "factor": str(self.factor),
            "decompose_both": str(self.decompose_both),
            "use_tucker": str(self.tucker),
        }
