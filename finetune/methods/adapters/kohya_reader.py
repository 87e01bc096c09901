"""Reading a file in kohya's layout back, by its published rules alone: neither peft nor diffusers' converter has a part in it.

diffusers' own converter takes alpha for the rank in places, and leaves out what DoRA scales.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.methods.adapters.kohya import stems

if TYPE_CHECKING:
    from torch import Tensor

_NETWORKS = ("unet", "text_encoder", "text_encoder_2")


def apply(pipeline: Any, file: Path) -> None:
    """Add what ``file`` holds to the weights of a base model's U-Net and text encoders, in place.

    Raises:
        ValueError: it is for a module that the pipeline has not, or of no known kind.
    """
    import torch
    from safetensors.torch import load_file

    modules = stems({n: getattr(pipeline, n) for n in _NETWORKS if hasattr(pipeline, n)})
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(file).items():
        module, _, part = name.partition(".")
        found.setdefault(module, {})[part] = tensor
    if unknown := sorted(found.keys() - modules.keys()):
        raise ValueError(f"{file}: the pipeline has no module {unknown[0]}")
    with torch.no_grad():
        for name, parts in found.items():
            weight = modules[name].weight
            weight.copy_(_changed(weight, parts))


def _changed(weight: Tensor, parts: dict[str, Tensor]) -> Tensor:
    """A weight with its adapter."""
    delta, rank = _delta(parts)
    scale = parts["alpha"].item() / rank if rank else 1.0
    changed = weight + scale * delta.reshape(weight.shape)
    if "dora_scale" not in parts:
        return changed
    norm = changed.flatten(1).norm(dim=1).reshape(parts["dora_scale"].shape)
    return changed * (parts["dora_scale"] / norm)


def _delta(parts: dict[str, Tensor]) -> tuple[Tensor, int | None]:
    """What is added to a weight, in any shape, before it is scaled; and the rank to divide by."""
    import torch

    if "lora_down.weight" in parts:
        down, up = parts["lora_down.weight"], parts["lora_up.weight"]
        return up.flatten(1) @ down.flatten(1), len(down)
    if "hada_w1_a" in parts:
        first, second = _product(parts, "hada_w1", "hada_t1"), _product(parts, "hada_w2", "hada_t2")
        return first * second, len(parts["hada_w1_b"])
    if "lokr_w1" in parts or "lokr_w1_a" in parts:
        outer, inner = (_product(parts, name, "lokr_t2") for name in ("lokr_w1", "lokr_w2"))
        outer = outer.reshape(*outer.shape, *[1] * (inner.dim() - 2))
        low = [len(parts[name]) for name in ("lokr_w2_b", "lokr_w1_b") if name in parts]
        return torch.kron(outer, inner.contiguous()), low[0] if low else None
    raise ValueError(f"an adapter of no known kind: {', '.join(sorted(parts))}")


def _product(parts: dict[str, Tensor], name: str, core: str) -> Tensor:
    """A matrix that is stored whole, as a product of two, or as one of two and a core."""
    import torch

    if name in parts:
        return parts[name]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if core in parts and not name.endswith("lokr_w1"):
        return torch.einsum("ijkl,ip,jr->prkl", parts[core], a, b)
    return a @ b
