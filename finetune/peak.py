"""The most memory that an update takes, from shapes alone: nothing is computed and nothing allocated.

The U-Net goes forward and back on tensors that have a shape and no content (torch's FakeTensorMode), while every
storage that an operation makes is counted until it is freed. So gradients, what autograd keeps, what gradient
checkpointing computes again and what an operation makes on the way are all in it. What is not: the workspaces of
single kernels, the CUDA context (about half a GB) and what the allocator loses between blocks.

In mixed precision operations compute in the types that CUDA's autocast gives them: normalisations in fp32, which the
CPU's autocast leaves in bf16.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune.conditioning import Conditioning

Predict = Callable[[nn.Module, Tensor, Tensor, Conditioning], Tensor]
_TYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.bfloat16,
}  # of the same size, and known to all operations


class _Counted(TorchDispatchMode):
    """Bytes of the storages that operations made and that are not freed: now, and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def ignore(self, tensor: Tensor) -> None:
        """Leave a tensor out that is there already; it has to stay."""
        self._known.add(id(tensor.untyped_storage()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return out

    def _take(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, id(storage), size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self.now -= size


class _Update(nn.Module):
    """Forward and backward pass in one call, so that both see the same weights."""

    def __init__(self, unet: nn.Module, predict: Predict, mixed: str) -> None:
        super().__init__()
        self.unet, self._predict, self._mixed = unet, predict, mixed

    def forward(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> None:
        kind = _TYPES.get(self._mixed)
        with _types_of_cuda():  # also where checkpointing computes again
            with torch.autocast("cpu", kind, enabled=kind is not None):
                predicted = self._predict(self.unet, noisy, timesteps, conditioning)
            predicted.float().square().mean().backward()


def update_bytes(
    unet: nn.Module,
    predict: Predict,
    given: Mapping[str, Tensor],
    *,
    samples: int,
    mixed: str,
) -> int:
    """Activations and gradients at the peak of an update, beside weights and optimizer.

    Args:
        unet: prepared, in the precision that it is held in, on any device, ``meta`` too; is not changed.
        predict: as ``LatentDiffusion.predict``.
        given: ``latents`` and every entry of the conditioning, by name: [any number of samples, ...]; only types and
            shapes are read.
        samples: at a time.
        mixed: precision, as ``optim.mixed_precision``.
    """
    training = unet.training
    unet.train()
    try:
        with torch.random.fork_rng([]), FakeTensorMode(), ExitStack() as inside:
            weights = {
                f"unet.{name}": nn.Parameter(
                    torch.empty(weight.shape, dtype=weight.dtype),
                    requires_grad=weight.requires_grad,
                )
                for name, weight in unet.named_parameters()
            }
            buffers = {
                f"unet.{name}": torch.empty(buffer.shape, dtype=buffer.dtype)
                for name, buffer in unet.named_buffers()
            }
            fed = {
                name: torch.empty((samples, *tensor.shape[1:]), dtype=tensor.dtype)
                for name, tensor in given.items()
            }
            noisy = fed.pop("latents")
            timesteps = torch.empty(samples, dtype=torch.int64)
            count = _Counted()
            for tensor in (*weights.values(), *buffers.values(), noisy, timesteps, *fed.values()):
                count.ignore(tensor)
            inside.enter_context(count)
            arguments = (noisy, timesteps, Conditioning(fed))
            torch.func.functional_call(_Update(unet, predict, mixed), weights | buffers, arguments)
            return count.peak
    finally:
        unet.train(training)


@contextmanager
def _types_of_cuda() -> Iterator[None]:
    """Let normalisations compute in fp32 in autocast."""
    with ExitStack() as inside:
        for name in ("group_norm", "layer_norm"):
            plain = getattr(functional, name)
            inside.enter_context(mock.patch.object(functional, name, partial(_in_fp32, plain)))
        yield


def _in_fp32(function: Callable[..., Tensor], given: Tensor, *more: Any, **named: Any) -> Tensor:
    autocast = torch.is_autocast_enabled("cpu")
    return function(given.float() if autocast else given, *more, **named)
