"""Losses are measured once for each thing they depend on, and bins are averaged as by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.measure.grid import LossStore, by_bin


def never() -> np.ndarray:
    raise AssertionError("measured again")


def test_store_remembers_by_fingerprint(tmp_path):
    path = tmp_path / "losses.npz"
    losses = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    store = LossStore(path)
    assert store.losses("val/00000001", "a", lambda: losses) is losses
    again = LossStore(path)
    assert np.array_equal(again.losses("val/00000001", "a", never), losses)
    with pytest.raises(AssertionError, match="measured again"):
        again.losses("val/00000001", "b", never)


def test_store_survives_a_stop_after_any_array_and_has_the_same_bytes(tmp_path):
    whole = LossStore(tmp_path / "whole.npz")
    for step in range(3):
        whole.losses(f"val/{step}", "f", lambda step=step: np.full((2, 2, 1), step, np.float32))
    for step in range(3):  # a process for each, as if killed after every array
        store = LossStore(tmp_path / "parts.npz")
        store.losses(f"val/{step}", "f", lambda step=step: np.full((2, 2, 1), step, np.float32))
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_prune_forgets_what_was_not_asked_for(tmp_path):
    path = tmp_path / "losses.npz"
    old = LossStore(path)
    old.losses("val/1", "a", lambda: np.zeros((1, 1, 1), np.float32))
    store = LossStore(path)
    store.put_keys("val", ["k"])
    store.losses("val/2", "a", lambda: np.ones((1, 1, 1), np.float32))
    store.prune()
    assert sorted(LossStore(path).arrays) == ["val/2", "val/2/fingerprint", "val/keys"]


def test_losses_under_older_names_are_not_measured_again(tmp_path):
    path = tmp_path / "losses.npz"
    losses = np.ones((1, 1, 1), np.float32)
    np.savez(path, **{"probe/1": losses, "probe/1/fingerprint": np.array("a"), "probe/keys": ["k"]})
    store = LossStore(path)
    assert np.array_equal(store.losses("train_probe/1", "a", never), losses)
    store.put_keys("train_probe", ["k"])
    store.prune()
    names = ["train_probe/1", "train_probe/1/fingerprint", "train_probe/keys"]
    assert sorted(LossStore(path).arrays) == names


def test_by_bin_by_hand():
    base = np.array(
        [[[1.0, 3.0], [0.5, 0.5], [0.01, 0.01]]]
    )  # bin means 2, 0.5 and next to nothing
    later = np.array([[[1.0, 1.0], [0.75, 0.75], [9.0, 9.0]]])
    change = by_bin(np.stack([base, later]), ["alone"])
    assert np.allclose(change[0, :2], 0)
    assert np.allclose(change[1, :2], [-0.5, 0.5])
    assert np.isnan(change[:, 2]).all()
