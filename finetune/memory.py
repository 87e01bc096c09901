"""The command ``python -m finetune.memory [MODEL ...]``: what an update takes, for published models and usual settings.

Computed from shapes alone, see ``finetune.peak``, so that no GPU and no weights are needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from finetune import frozen, optimizers, peak
from finetune.conditioning import Conditioning
from finetune.methods import METHODS, prepare
from finetune.methods.adapters.adapter import Adapter
from finetune.models.original.families import SD1, SD2, SDXL, Family

PRESETS = {"sd15": (SD1, 512), "sd21": (SD2, 768), "sdxl": (SDXL, 1024)}
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
BATCHES = (1, 4)
_TOKENS, _PIXELS, _GB = 77, 8, 1e9
_ADDED = {"pooled": (1280,), "time_ids": (6,)}  # of SDXL


@dataclass(frozen=True)
class Plan:
    """An update of a published model, in bf16 mixed precision.

    Attributes:
        preset: of ``PRESETS``. method: its name. held: in which frozen weights are held.
        checkpointing: of gradients. batch: samples at a time.
    """

    preset: str
    method: str
    held: str
    checkpointing: bool
    batch: int


@dataclass(frozen=True)
class Taken:
    """Bytes on the device.

    Attributes:
        weights: of the U-Net, in what they are held in. average: of the trained weights.
        optimizer: its state, by its name. update: activations and gradients at the peak.
    """

    weights: int
    average: int
    optimizer: dict[str, int]
    update: int

    def total(self, optimizer: str) -> int:
        """With one of the optimizers."""
        return self.weights + self.average + self.optimizer[optimizer] + self.update


def plans() -> Iterator[Plan]:
    """All rows of the table."""
    ways = [("lora", "fp32"), ("lora", "bf16"), ("lora", "fp8"), ("full", "fp32")]
    for preset, (method, held), checkpointing, batch in product(
        PRESETS, ways, (False, True), BATCHES
    ):
        yield Plan(preset, method, held, checkpointing, batch)


def taken(plan: Plan) -> Taken:
    """What an update of a plan takes, with a moving average."""
    family, side = PRESETS[plan.preset]
    unet = _unet(family, plan)
    trained = [weight for weight in unet.parameters() if weight.requires_grad]
    return Taken(
        weights=sum(weight.nbytes for weight in unet.parameters()),
        average=sum(weight.nbytes for weight in trained),
        optimizer={
            name: optimizers.state_bytes(name, (tuple(each.shape) for each in trained))
            for name in OPTIMIZERS
        },
        update=peak.update_bytes(
            unet, _predict, _given(family, side), samples=plan.batch, mixed="bf16"
        ),
    )


def _unet(family: Family, plan: Plan) -> UNet2DConditionModel:
    """Prepared, on the device ``meta``: shapes without content."""
    kind = METHODS[plan.method]
    method = kind(base_weights=plan.held) if issubclass(kind, Adapter) else kind()
    with torch.device("meta"):
        unet = UNet2DConditionModel(**family.unet)
        prepare(unet, method, 0)
    frozen.hold(unet, method.held())
    if plan.checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def _given(family: Family, side: int) -> dict[str, Tensor]:
    latents = (family.unet["in_channels"], side // _PIXELS, side // _PIXELS)
    shapes: dict[str, tuple[int, ...]] = {
        "latents": latents,
        "hidden": (_TOKENS, family.unet["cross_attention_dim"]),
    }
    shapes |= _ADDED if family is SDXL else {}
    return {name: torch.empty((1, *shape), device="meta") for name, shape in shapes.items()}


def _predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, given: Conditioning) -> Tensor:
    added: dict[str, Any] = {}
    if "pooled" in given.tensors:
        added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    return unet(
        noisy, timesteps, encoder_hidden_states=given["hidden"], added_cond_kwargs=added
    ).sample


def table(chosen: Iterator[Plan]) -> Iterator[str]:
    """Lines of Markdown; GB are 10^9 bytes."""
    heads = ["model", "method", "frozen weights", "gradient checkpointing", "samples at a time"]
    yield "| " + " | ".join([*heads, *OPTIMIZERS]) + " |"
    yield "|---" * len(heads) + "|--:" * len(OPTIMIZERS) + "|"
    for plan in chosen:
        found = taken(plan)
        held = plan.held if plan.method != "full" else "-"
        model = f"{plan.preset} {PRESETS[plan.preset][1]} px"
        yes = "yes" if plan.checkpointing else "no"
        sizes = [f"{found.total(name) / _GB:.1f}" for name in OPTIMIZERS]
        yield "| " + " | ".join([model, plan.method, held, yes, str(plan.batch), *sizes]) + " |"


def main(names: list[str]) -> int:
    """Print the table, row by row as it is computed; of some models alone where they are named."""
    if unknown := sorted(set(names) - set(PRESETS)):
        sys.stderr.write(f"error: no model {unknown[0]!r}; choose from: {' '.join(PRESETS)}\n")
        return 2
    for line in table(plan for plan in plans() if not names or plan.preset in names):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
