"""Checkpoints appear whole, the links follow, and the optimizer comes back as it was."""

from __future__ import annotations

import pytest
import torch

from curate.run.files import remove_parts
from finetune import checkpoint
from finetune.checkpoint import best_of, list_checkpoints, restore_optimizer, save


def stored(folder, step, heldout=None, keep=None):
    weights = {
        "b": torch.nn.Parameter(torch.full((2,), float(step))),
        "a": torch.nn.Parameter(torch.ones(3)),
    }
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    (weights["b"].sum() * 2 + weights["a"].square().sum()).backward()
    optimizer.step()
    state = {"step": step, "samples_seen": 10 * step, "heldout": heldout, "stopped": None}
    return save(folder, state, weights, None, optimizer, keep), weights, optimizer


def test_links_and_retention_follow_the_held_out_loss(tmp_path):
    for step, heldout in enumerate([0.9, 0.7, 0.8, 0.75], start=1):
        stored(tmp_path, step, heldout, keep=2)
    links = tmp_path / "checkpoints"
    assert [c.step for c in list_checkpoints(tmp_path)] == [2, 3, 4]  # two newest, and the best
    assert (links / "best").readlink().name == "step-00000002"
    assert (links / "last").readlink().name == "step-00000004"
    assert best_of(list_checkpoints(tmp_path)).heldout == 0.7


def test_an_old_checkpoint_goes_as_a_whole(tmp_path, monkeypatch):
    """Killed while its files are deleted, it is no checkpoint any more, and the next start clears up."""
    stored(tmp_path, 1, 0.9)

    def killed(path, *_args, **_options):
        if path.exists():
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, 2, 0.8, keep=1)
    assert [c.step for c in list_checkpoints(tmp_path)] == [2]
    remove_parts(tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_the_optimizer_goes_on_exactly(tmp_path):
    saved, weights, optimizer = stored(tmp_path, 1)
    copies = {name: torch.nn.Parameter(value.clone()) for name, value in saved.weights().items()}
    copies = {
        name: copies[name] for name in weights
    }  # safetensors sorts by name, training does not
    fresh = torch.optim.AdamW(copies.values(), lr=0.1)
    restore_optimizer(fresh, copies, saved)
    for params, opt in ((weights, optimizer), (copies, fresh)):
        opt.zero_grad()
        (params["b"].square().sum() + params["a"].sum()).backward()
        opt.step()
    for name in weights:
        assert torch.equal(weights[name], copies[name])


def test_a_checkpoint_that_was_cut_short_does_not_exist(tmp_path, monkeypatch):
    stored(tmp_path, 1, 0.9)

    def cut(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "write_certified", cut)
    with pytest.raises(OSError, match="no space"):
        stored(tmp_path, 2, 0.5)
    assert [c.step for c in list_checkpoints(tmp_path)] == [1]
    assert (tmp_path / "checkpoints" / "last").readlink().name == "step-00000001"
    remove_parts(tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))
