"""The weights of a U-Net that adapters leave as they are, held in fewer bits than the U-Net computes in.

Which layers, and what they compute, is as in diffusers' ``enable_layerwise_casting``: linear layers and convolutions
whose name does not say that they belong to a normalisation. That function casts their biases, too, which stay fp32 here.
And it casts a layer's weight for each forward pass and back after it, so that the backward pass meets the wrong one: it
fails, also with gradient checkpointing. Here each pass converts a copy for itself. What autograd then keeps is the weight
as it is held, and of the input nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input
from torch.nn.parallel import DistributedDataParallel

from curate.run.schema import UserError

TYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
_KEPT = re.compile("norm|pos_embed|patch_embed|^proj_in|^proj_out")  # in diffusers, too


def layers(unet: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers of a prepared U-Net, by name, whose frozen weights are held in fewer bits."""
    for name, layer in unet.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d) or _KEPT.search(name):
            continue
        if not any(weight.requires_grad for weight in layer.parameters()):
            yield name, layer


@torch.no_grad()
def round_to(unet: nn.Module, kind: str) -> None:
    """Round the weights that will be held in fewer bits, still in fp32; call it before adapters are attached.

    So an adapter that starts from the weights, as DoRA does, starts from those that it will stand beside.

    Args:
        unet: frozen, fp32.
        kind: of ``TYPES``, or ``fp32``, which changes nothing.

    Raises:
        UserError: a weight is beyond the range of 8 bits.
    """
    if kind == "fp32":
        return
    for name, layer in layers(unet):
        rounded = layer.weight.to(TYPES[kind]).float()
        largest = layer.weight.abs().max().item()
        if not rounded.isfinite().all() or largest > torch.finfo(TYPES[kind]).max:
            raise UserError(
                f"method.base_weights={kind} cannot hold the weights of {name}, up to {largest:.3g}; type "
                "method.base_weights=bf16"
            )
        layer.weight.copy_(rounded)


@torch.no_grad()
def hold(unet: nn.Module, kind: str) -> None:
    """Hold the frozen weights in ``kind``, in place; what is trained, biases and normalisations stay as they are, fp32.

    Args:
        unet: prepared; :func:`round_to` has rounded it.
        kind: of ``TYPES``, or ``fp32``, which changes nothing.
    """
    if kind == "fp32":
        return
    for _, layer in list(layers(unet)):
        layer.weight.data = layer.weight.data.to(TYPES[kind])
        layer.__class__ = _Linear if isinstance(layer, nn.Linear) else _Conv2d  # type: ignore[assignment]


def keep_unsent(network: nn.Module) -> None:
    """Let the processes of a launch not send each other the weights that :func:`hold` holds.

    They have read the same files, and gloo cannot send 8 bits.

    Args:
        network: that will be distributed; the U-Net, or what it is a part of.
    """
    held = (name for name, each in network.named_modules() if isinstance(each, _Linear | _Conv2d))
    if unsent := [f"{name}.weight" for name in held]:
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(network, unsent)


@torch.no_grad()
def release(unet: nn.Module, plain: Callable[[], nn.Module]) -> None:
    """Undo :func:`hold` and :func:`round_to`, in place.

    Args:
        unet: prepared. plain: gives a U-Net of the base model, fp32, on any device.
    """
    held = [(name, layer) for name, layer in layers(unet) if isinstance(layer, _Linear | _Conv2d)]
    if not held:
        return
    values = dict(plain().named_parameters())
    for name, layer in held:
        value = values[f"{name.removesuffix('.base_layer')}.weight"]
        layer.weight.data = value.detach().to(layer.weight.device, torch.float32)
        layer.__class__ = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d  # type: ignore[assignment]


def _computing_type(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _Product(torch.autograd.Function):
    """x W^T + b for a frozen W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = _computing_type(x)
        ctx.save_for_backward(weight)
        ctx.given = x.dtype
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.to(kind), weight.to(kind), _as(bias, kind))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return (grad @ weight.to(grad.dtype)).to(ctx.given), None, None


class _Convolution(torch.autograd.Function):
    """A two-dimensional convolution of a frozen kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple) -> Tensor:
        kind = _computing_type(x)
        ctx.save_for_backward(weight)
        ctx.given, ctx.shape, ctx.how = x.dtype, x.shape, how
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(x.to(kind), weight.to(kind), _as(bias, kind), *how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        found = conv2d_input(ctx.shape, weight.to(grad.dtype), grad, *ctx.how)
        return found.to(ctx.given), None, None, None


def _as(bias: Tensor | None, kind: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(kind)


class _Linear(nn.Linear):
    """A linear layer whose weight is held in another type than it computes in."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return _Product.apply(input, self.weight, self.bias)  # type: ignore[return-value]


class _Conv2d(nn.Conv2d):
    """The same of a convolution, padded with zeros."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        how = (self.stride, self.padding, self.dilation, self.groups)
        return _Convolution.apply(input, self.weight, self.bias, how)  # type: ignore[return-value]
