"""Checkpoints appear whole, the links follow, and the optimizer comes back as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from curate.run import checksums
from curate.run.files import remove_parts
from finetune import checkpoint
from finetune.checkpoint import best_of, list_checkpoints, restore_optimizer, save


def stored(folder, step, heldout=None, keep=None, average=False, **more):
    weights = {
        "b": torch.nn.Parameter(torch.full((2,), float(step))),
        "a": torch.nn.Parameter(torch.ones(3)),
    }
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1)
    (weights["b"].sum() * 2 + weights["a"].square().sum()).backward()
    optimizer.step()
    state = {"step": step, "samples_seen": 10 * step, "heldout": heldout, "stopped": None, **more}
    ema = {name: weight / 2 for name, weight in weights.items()} if average else None
    saved = save(folder, state, weights, ema, optimizer)
    checkpoint.settle(folder, keep)
    return saved, weights, optimizer


def files(folder):
    """Names of the files of each checkpoint, by step."""
    return {c.step: {path.stem for path in c.path.iterdir()} for c in list_checkpoints(folder)}


def test_links_and_retention_follow_the_held_out_loss(tmp_path):
    for step, heldout in enumerate([0.9, 0.7, 0.8, 0.75], start=1):
        stored(tmp_path, step, heldout, keep=2)
    links = tmp_path / "checkpoints"
    assert [c.step for c in list_checkpoints(tmp_path)] == [1, 2, 3, 4]
    assert (links / "best").readlink().name == "step-00000002"
    assert (links / "last").readlink().name == "step-00000004"
    assert best_of(list_checkpoints(tmp_path)).heldout == 0.7


@pytest.mark.parametrize("average", [False, True])
def test_the_newest_keep_what_resuming_needs_and_all_what_is_evaluated(tmp_path, average):
    expected = {}
    for step in range(1, 5):
        saved, *_ = stored(tmp_path, step, 0.9, keep=2, average=average)
        expected[step] = saved.weights()
    own = {"state", "checksums"}
    evaluated, whole = ({"ema"}, {"ema", "weights"}) if average else ({"weights"}, {"weights"})
    assert files(tmp_path) == {step: own | (evaluated if step < 3 else whole) for step in expected}
    for found in list_checkpoints(tmp_path):
        assert (found.path / "state.safetensors").exists() == (found.step > 2)
        assert checksums.damaged(found.path) == []
        assert found.weights().keys() == expected[found.step].keys()
        for name, weight in found.weights().items():
            assert torch.equal(weight, expected[found.step][name])


@pytest.mark.parametrize("moment", ["forget", "unlink"])
def test_what_is_left_of_an_old_checkpoint_is_the_same_after_a_kill(tmp_path, monkeypatch, moment):
    def killed(*_, **__):
        raise KeyboardInterrupt

    for name in ("straight", "killed"):
        for step in (1, 2):
            stored(tmp_path / name, step, average=True)
    assert checkpoint.settle(tmp_path / "straight", keep=1) == ["checkpoints/step-00000001/"]
    with monkeypatch.context() as patched:
        patched.setattr(*((checksums, moment) if moment == "forget" else (Path, moment)), killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint._strip(tmp_path / "killed/checkpoints/step-00000001")
    for found in list_checkpoints(tmp_path / "killed"):
        assert found.weights()
    checkpoint.settle(tmp_path / "killed", keep=1)
    assert checkpoint.settle(tmp_path / "killed", keep=1) == []  # nothing is left to do
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/step-00000001/*")}
        for name in ("straight", "killed")
    ]
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"ema.safetensors", "state.json", "checksums.json"}


def test_an_old_checkpoint_goes_as_a_whole(tmp_path, monkeypatch):
    """Killed while its files are deleted, it is no checkpoint any more, and the next start clears up."""
    stored(tmp_path, 1, interrupted={})

    def killed(path, *_args, **_options):
        if path.exists():
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, 2, 0.8)
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


@pytest.mark.parametrize("umask", [0o027, 0o077, 0o002])
def test_others_may_read_it_as_the_umask_says(tmp_path, umask):
    """safetensors makes files that only their owner may read."""
    before = os.umask(umask)
    try:
        saved, *_ = stored(tmp_path, 1, average=True)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in saved.path.iterdir()}
    assert len(modes) == 5
    assert set(modes.values()) == {0o666 & ~umask}
    assert stat.S_IMODE(saved.path.stat().st_mode) == 0o777 & ~umask
