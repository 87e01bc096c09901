"""The optimizers of the group ``optim``: how each is made, what it holds and what is stored of it."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from curate.run import devices
from curate.run.schema import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from finetune.config import OptimConfig

_PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}
_GROUP_STATE = ("d", "d_max", "d_hat", "d_numerator", "d_denom", "k")
"""What Prodigy learns for all weights of a group together: its estimate of the rate above all."""
_FP32 = 4  # bytes
_IN_8_BITS, _BLOCK = 4096, 256
"""bitsandbytes keeps the moments of smaller weights in fp32; a block of numbers shares a scale in fp32."""
_MAPS = 2 * 256 * _FP32  # the two tables that say what 8 bits mean, one copy for all weights


def refuse_absent(optim: OptimConfig) -> None:
    """Refuse an optimizer whose package is not installed, or that needs a GPU where there is certainly none.

    Raises:
        UserError: says what to type.
    """
    if optim.name == "adamw8bit" and devices.has_no_gpu():
        raise UserError(
            "optim=adamw8bit needs a GPU: bitsandbytes computes in 8 bits on GPUs only. Type optim=adamw, or "
            "optim=adafactor, which holds less than either"
        )
    package = _PACKAGES.get(optim.name)
    if package and find_spec(package) is None:
        raise UserError(
            f"optim={optim.name} needs the package {package}; type pip install 'darkroom[{optim.name}]', or "
            "optim=adamw"
        )


def make(
    optim: OptimConfig, unets: Iterable[nn.Parameter], texts: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimizer of ``optim``: over the U-Net's weights in one group, and over text encoders' in another, if any."""
    import torch

    groups = [list(unets), list(texts)]
    weights: Any = [{"params": group} for group in groups if group]
    decay = optim.weight_decay
    if optim.name == "adafactor":
        return torch.optim.Adafactor(
            weights,
            lr=optim.lr,
            beta2_decay=optim.decay_rate,
            d=optim.clip_threshold,
            weight_decay=decay,
        )
    adam: dict[str, Any] = {"lr": optim.lr, "betas": (optim.beta1, optim.beta2), "eps": optim.eps}
    if optim.name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

        return AdamW8bit(weights, **adam, weight_decay=decay)
    if optim.name == "prodigy":
        from prodigyopt import Prodigy  # pyright: ignore[reportMissingImports]

        with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
            return Prodigy(
                weights,
                **adam,
                weight_decay=decay,
                d0=optim.d0,
                d_coef=optim.d_coef,
                use_bias_correction=optim.use_bias_correction,
                safeguard_warmup=optim.safeguard_warmup,
            )
    return torch.optim.AdamW(weights, **adam, weight_decay=decay, fused=True)


def state_bytes(name: str, shapes: Iterable[tuple[int, ...]]) -> int:
    """What an optimizer holds beside weights and gradients, in bytes, without a few numbers for each weight.

    Args:
        name: of the optimizer.
        shapes: of the fp32 weights.
    """
    return sum(_of_weight(name, shape) for shape in shapes) + (name == "adamw8bit") * _MAPS


def _of_weight(name: str, shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    if name == "adafactor" and len(shape) > 1:  # a factor for rows and one for columns
        return _FP32 * (count // shape[-1] + count // shape[-2])
    if name == "adafactor":
        return _FP32 * count
    if name == "adamw8bit" and count >= _IN_8_BITS:
        return 2 * (count + _FP32 * -(-count // _BLOCK))
    moments = {"prodigy": 4}.get(name, 2)  # Prodigy: the first weights and a sum of gradients, too
    return moments * _FP32 * count


# What checkpoints store. Torch's optimizers hold tensors alone; the others have plain numbers beside them, which are
# stored as int64 and float64: the tensors of an optimizer are neither.


def tensors(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``<weight>|<quantity>`` -> tensor, and ``|<group>.<quantity>`` of what a group has."""
    found = {
        f"{name}|{quantity}": _stored(value)
        for name, weight in weights.items()
        for quantity, value in optimizer.state[weight].items()
    }
    for number, group in enumerate(optimizer.param_groups):
        for quantity in _GROUP_STATE:
            if quantity in group:
                found[f"|{number}.{quantity}"] = _stored(group[quantity])
    return found


def restore(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> None:
    """Give a fresh optimizer over ``weights`` the state that :func:`tensors` gave."""
    index = {name: number for number, name in enumerate(weights)}
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for key, value in stored.items():
        name, _, quantity = key.rpartition("|")
        if name:
            state.setdefault(index[name], {})[quantity] = _restored(value)
        else:
            number, _, quantity = quantity.partition(".")
            groups[int(number)][quantity] = _restored(value)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _stored(value: Any) -> Tensor:
    import torch

    if isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def _restored(value: Tensor) -> Any:
    import torch

    return value.item() if value.dtype in (torch.int64, torch.float64) else value
