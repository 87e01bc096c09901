"""Which GPUs are certainly not there, by the build of torch, the environment and the driver."""

import pytest
import torch

from curate.run import devices
from curate.run.schema import UserError


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be on Linux with a build of torch, with or without NVIDIA's driver."""

    def pretend(build="2.15.0", driver=True, platform="linux", visible=None):
        def library(_name):
            if not driver:
                raise OSError("not found")

        devices.no_cuda.cache_clear()
        monkeypatch.setattr(devices, "version", lambda _: build)
        monkeypatch.setattr(devices.ctypes, "CDLL", library)
        monkeypatch.setattr(devices.sys, "platform", platform)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    yield pretend
    devices.no_cuda.cache_clear()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"build": "2.15.0+cpu"}, "built without CUDA"),
        ({"driver": False}, "no driver for NVIDIA"),
        ({"visible": ""}, "hides every GPU"),
        ({"visible": "-1"}, "hides every GPU"),
        ({"platform": "darwin"}, "built without CUDA"),
    ],
)
def test_a_gpu_that_is_certainly_not_there_is_refused(machine, options, reason):
    machine(**options)
    with pytest.raises(UserError, match=rf"device=cuda:1 is not there: .*{reason}.* device=cpu"):
        devices.refuse_absent("device", "cuda:1")
    assert devices.has_no_gpu() == ("platform" not in options)


@pytest.mark.parametrize("options", [{}, {"visible": "0"}, {"build": "2.15.0+cu130"}])
def test_what_may_be_there_is_left_to_torch(machine, options):
    machine(**options)
    for device in ("cuda", "cuda:7", "cpu", "auto"):
        devices.refuse_absent("device", device)
    assert not devices.has_no_gpu()
    with pytest.raises(UserError, match="mps is Apple's GPU"):
        devices.refuse_absent("device", "mps")


def test_torch_agrees_on_this_machine():
    devices.no_cuda.cache_clear()
    if torch.cuda.is_available():
        assert devices.no_cuda() == ""
    if devices.has_no_gpu():
        assert not torch.accelerator.is_available()
