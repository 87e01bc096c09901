"""What is compiled are updates, and they stay what they were."""

from __future__ import annotations

import pytest
import torch

from curate.run.schema import UserError
from finetune import compiled, doctor
from tests.finetune.conftest import losses


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["counted", "inductor"])
def test_updates_are_compiled_and_nothing_else(make_config, run_training, monkeypatch, backend):
    graphs = []

    def counted(module, _inputs):
        graphs.append(torch.is_grad_enabled())
        return module.forward

    torch._dynamo.reset()
    if backend == "counted":
        monkeypatch.setattr(compiled, "BACKEND", counted)
    plain = make_config("plain", method="lora")
    config = make_config("compiled", method="lora", **{"train.compile": True})
    run_training(plain)
    run_training(config)
    assert backend != "counted" or (graphs and all(graphs))
    for ours, theirs in zip(losses(config), losses(plain), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert losses(config)[0] == losses(plain)[0]  # of the base, measured as without


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launch_that_cuts_weights_into_pieces_is_refused(make_config, monkeypatch, name):
    doctor.examine_settings(make_config())
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(UserError, match=rf"{name}, which is not supported.*accelerate/ddp\.yaml"):
        doctor.examine_settings(make_config())
