"""Which device to compute on, and whether a GPU is certainly not there, found out without importing torch."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from curate.run.schema import UserError


def refuse_absent(key: str, device: str) -> None:
    """Refuse a device that torch will not find; whether it finds the others, it says itself.

    Raises:
        UserError: names the key and the reason.
    """
    kind = device.partition(":")[0]
    reason = no_cuda() if kind == "cuda" else ""
    if kind == "mps" and sys.platform != "darwin":
        reason = "mps is Apple's GPU"
    if reason:
        raise UserError(f"{key}={device} is not there: {reason}. Type {key}=auto, or {key}=cpu")


def chosen(device: str) -> str:
    """The torch device that a setting means: ``auto`` is CUDA where torch finds it, else the processor."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_no_gpu() -> bool:
    """Whether torch will certainly find none of any make."""
    return bool(no_cuda()) and sys.platform == "linux" and "+xpu" not in _torch()


@cache
def no_cuda() -> str:
    """Why torch will certainly find no GPU under the name ``cuda``; "" where it may find one."""
    build = _torch()
    if "+cpu" in build or sys.platform == "darwin":
        return f"torch {build} is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if "+rocm" in build:
        return "" if Path("/dev/kfd").exists() else "this machine has no driver for AMD's GPUs"
    if sys.platform != "linux":
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")  # loads the driver's library; nothing is started
    except OSError:
        return "this machine has no driver for NVIDIA's GPUs"
    return ""


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
