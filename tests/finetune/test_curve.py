"""When training should stop: planted curves with known answers."""

from __future__ import annotations

import numpy as np

from finetune.curve import HeldoutCurve
from finetune.early_stop import reason_to_stop
from finetune.heldout import HeldoutItems
from finetune.rules import symptom


def curve(
    val: list[float], train_probe: list[float], noise: float = 0.01, items: int = 64
) -> HeldoutCurve:
    """A curve with these mean losses relative to the base, and item-wise noise of that much."""
    rng = np.random.default_rng(0)
    keys = [str(i) for i in range(items)]
    built = HeldoutCurve(keys, keys, keys, keys)
    level = rng.uniform(0.5, 1.5, (items, 2, 1))
    for step, means in enumerate(zip(val, train_probe, strict=True)):
        losses = [
            (level * (mean + noise * rng.normal(size=level.shape))).astype(np.float32)
            for mean in means
        ]
        built.add(step, 10 * step, *losses)
    return built


def test_held_out_worse_while_training_pictures_improve_is_overfitting():
    overfit = curve([1, 0.9, 0.8, 0.9, 0.95], [1, 0.9, 0.8, 0.6, 0.5])
    found = [symptom(overfit.evidence(at)) for at in range(1, 5)]
    assert found == [None, None, None, "overfitting"]
    assert reason_to_stop(overfit, patience=2) == "overfitting"
    assert reason_to_stop(overfit, patience=3) is None
    assert reason_to_stop(overfit, patience=None) is None


def test_a_widening_gap_alone_is_not():
    healthy = curve([1, 0.95, 0.92, 0.9, 0.89], [1, 0.9, 0.8, 0.7, 0.6])
    assert all(symptom(healthy.evidence(at)) is None for at in range(1, 5))


def test_a_rise_within_the_noise_is_not():
    flat = curve([1, 0.9, 0.901, 0.9, 0.902], [1, 0.9, 0.89, 0.88, 0.87], noise=0.05)
    assert reason_to_stop(flat, patience=1) is None


def test_both_worse_than_the_base_is_divergence():
    assert reason_to_stop(curve([1, 0.9, 1.3, 1.5], [1, 0.9, 1.2, 1.4]), patience=2) == "diverged"


def test_what_is_not_a_number_stops_at_once():
    broken = curve([1, float("nan")], [1, float("nan")])
    assert reason_to_stop(broken, patience=2) == "diverged"
    assert reason_to_stop(broken, patience=None) is None
    assert reason_to_stop(curve([1, 9], [1, 9]), patience=2) is None  # one look is not enough


def test_held_out_worse_and_training_pictures_too_stops_as_well():
    regressing = curve([1, 0.8, 0.9, 0.9], [1, 0.8, 0.9, 0.9])
    assert reason_to_stop(regressing, patience=2) == "regressing"


def test_a_curve_survives_its_file_and_can_be_cut(tmp_path):
    whole = curve([1, 0.9, 0.8], [1, 0.9, 0.7])
    whole.save(tmp_path / "a.npz")
    whole.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    cut = HeldoutCurve.load(tmp_path / "a.npz", up_to=1)
    assert cut.steps == [0, 1]
    assert cut.samples_seen == [0, 10]
    assert cut.heldout() == whole.heldout(1)
    np.testing.assert_array_equal(
        HeldoutCurve.load(tmp_path / "a.npz").train_probe, whole.train_probe
    )


def test_one_picture_decides_nothing():
    alone = curve([1, 0.9, 0.8, 0.9, 0.95], [1, 0.9, 0.8, 0.6, 0.5], items=1)
    assert reason_to_stop(alone, patience=1) is None


def test_a_start_that_is_hardly_worse_than_the_base_goes_on():
    """The negligible change of the verdict is the one that training stops by."""
    assert reason_to_stop(curve([1, 1.0005], [1, 1.0005], noise=0), patience=1) is None
    assert reason_to_stop(curve([1, 1.003], [1, 1.003], noise=0), patience=1) == "diverged"


def test_an_empty_curve_knows_its_items():
    items = HeldoutItems(["a"], np.zeros(1), np.zeros(1), ["g"])  # type: ignore[arg-type]
    empty = HeldoutCurve.of(items, items)
    assert (empty.val_keys, empty.train_probe_groups) == (["a"], ["g"])
