"""Caption gain against closed forms: a network that knows each caption's mean picture and nothing else."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.caption_gain import (
    Exchanged,
    Thinned,
    caption_effects,
    fit,
    gains,
    partners,
    reads_as,
    without_caption,
)
from finetune.conditioning import Conditioning
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses, relative
from finetune.objective import NoiseSchedule

GRID = HeldoutGrid(bins=4, draws=2, seed=5)
SHAPE = (2, 4, 4)


class MeanOfCaption(torch.nn.Module):
    """Takes the caption's mean latent, which is its conditioning, for the clean picture."""

    def forward(self, noisy, timesteps, conditioning):
        alpha, sigma = schedule()._at(timesteps)
        return (noisy - alpha * conditioning["mean"].reshape(noisy.shape)) / sigma


def schedule() -> NoiseSchedule:
    bars = torch.linspace(0.9, 0.1, 100)
    return NoiseSchedule(bars.sqrt(), (1 - bars).sqrt(), "epsilon")


MODEL = SimpleNamespace(
    schedule=schedule(),
    device=torch.device("cpu"),
    predict=lambda network, noisy, t, conditioning: network(noisy, t, conditioning),
)
NETWORK = MeanOfCaption()


def planted(count: int, seed: int = 0) -> tuple[HeldoutItems, list[str], np.ndarray, np.ndarray]:
    """Items, captions, and means and deviations [N, D] of their latents; each caption has its own mean."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, 32)).astype(np.float32)
    deviations = 0.5 * rng.normal(size=(count, 32)).astype(np.float32)
    items = HeldoutItems(
        keys=[f"key-{seed}-{i}" for i in range(count)],
        latents=torch.from_numpy(means + deviations).reshape(count, *SHAPE),
        conditioning=Conditioning({"mean": torch.from_numpy(means)}),
        groups=[f"group-{i // 2}" for i in range(count)],
    )
    return items, [f"caption {i}" for i in range(count)], means, deviations


def test_gain_and_effect_have_their_closed_forms():
    """Per level all losses have one factor, which relative losses cancel."""
    items, captions, means, deviations = planted(10)
    exchanged = Exchanged.of(items, captions)
    own, other, effect = caption_effects(MODEL, NETWORK, exchanged, GRID, batch_size=16)
    shift = means - means[partners(items.keys, captions, items.groups)]
    error = (deviations**2).mean(axis=1)
    unit = error.reshape(5, 2).mean(axis=1).mean()
    np.testing.assert_allclose(
        gains(other, own, own, items.groups),
        (((deviations + shift) ** 2).mean(axis=1) - error) / unit,
        rtol=1e-3,
    )
    np.testing.assert_allclose(
        relative(effect, own, items.groups), (shift**2).mean(axis=1) / unit, rtol=1e-3
    )


def test_losses_are_those_of_the_grid_and_no_caption_is_the_empty_one():
    items, captions, means, deviations = planted(6)
    exchanged = Exchanged.of(items, captions)
    own, other, _ = caption_effects(MODEL, NETWORK, exchanged, GRID, batch_size=7)
    for found, these in ((own, exchanged.own), (other, exchanged.other)):
        np.testing.assert_allclose(
            found, grid_losses(MODEL, NETWORK, these, GRID, batch_size=5), rtol=1e-4
        )
    none = without_caption(items, Conditioning({"mean": torch.zeros(1, 32)}))
    losses = grid_losses(MODEL, NETWORK, none, GRID, batch_size=64)
    full = grid_losses(MODEL, NETWORK, items, GRID, batch_size=64)
    unit = (deviations**2).mean(axis=1).reshape(3, 2).mean(axis=1).mean()
    expected = (((means + deviations) ** 2).mean(axis=1) - (deviations**2).mean(axis=1)) / unit
    np.testing.assert_allclose(gains(losses, full, full, items.groups), expected, rtol=1e-3)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_fit_is_the_share_of_right_captions_for_a_model_that_knows_them(share, expected):
    items, captions, *_ = planted(400, seed=1)
    items.groups[:] = items.keys
    wrong = np.arange(round(share * 400))
    source = np.arange(400)
    source[wrong] = np.roll(wrong, 1)
    shuffled = HeldoutItems(
        items.keys, items.latents, items.conditioning.take(source.tolist()), items.groups
    )
    exchanged = Exchanged.of(shuffled, [captions[i] for i in source])
    own, other, effect = caption_effects(MODEL, NETWORK, exchanged, GRID, batch_size=512)
    groups = exchanged.own.groups
    found = fit(gains(other, own, own, groups), relative(effect, own, groups), groups)
    assert found.low < expected < found.high
    assert found.high - found.low < 0.2


def test_the_result_does_not_depend_on_batch_size_order_or_company():
    items, captions, *_ = planted(9)
    exchanged = Exchanged.of(items, captions)
    whole = caption_effects(MODEL, NETWORK, exchanged, GRID, batch_size=100)
    np.testing.assert_allclose(
        caption_effects(MODEL, NETWORK, exchanged, GRID, batch_size=1), whole, rtol=1e-4
    )
    backwards = HeldoutItems(
        items.keys[::-1],
        items.latents.flip(0),
        items.conditioning.take(list(range(8, -1, -1))),
        items.groups[::-1],
    )
    again = caption_effects(
        MODEL, NETWORK, Exchanged.of(backwards, captions[::-1]), GRID, batch_size=10
    )
    np.testing.assert_allclose(again[:, ::-1], whole, rtol=1e-4)


def test_measuring_leaves_mode_and_random_state_alone():
    items, captions, *_ = planted(4)
    NETWORK.train()
    state = torch.get_rng_state()
    caption_effects(MODEL, NETWORK, Exchanged.of(items, captions), GRID, batch_size=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert NETWORK.training


def test_thinned_cells_are_cells_of_the_grid():
    items, *_ = planted(3)
    for grid in (GRID, HeldoutGrid(bins=5, draws=1), HeldoutGrid(bins=1, draws=3)):
        thin = Thinned.of(grid)
        whole = grid_losses(MODEL, NETWORK, items, grid, batch_size=64)
        assert thin.among(whole).shape == (3, max(1, grid.bins // 2), 1)
        np.testing.assert_allclose(
            grid_losses(MODEL, NETWORK, items, thin, batch_size=64), thin.among(whole), rtol=1e-6
        )


# Who gets whose caption


def is_allowed(i: int, j: int, captions: list[str], groups: list[str]) -> bool:
    return groups[i] != groups[j] and reads_as(captions[i]) != reads_as(captions[j])


def test_another_caption_reads_differently_and_is_of_another_group():
    keys = [f"k{i}" for i in range(40)]
    captions = [("A cat!", "a  CAT", "a dog", "two dogs")[i % 4] for i in range(40)]
    groups = [f"g{i // 3}" for i in range(40)]
    found = partners(keys, captions, groups)
    assert sorted(found) == list(range(40))
    assert all(is_allowed(i, j, captions, groups) for i, j in enumerate(found))


def test_the_choice_follows_from_the_keys_alone():
    keys = [f"k{i}" for i in range(30)]
    captions = [f"caption {i % 11}" for i in range(30)]
    groups = [f"g{i % 7}" for i in range(30)]
    by_key = {keys[i]: keys[j] for i, j in enumerate(partners(keys, captions, groups))}
    order = np.random.default_rng(0).permutation(30).tolist()
    moved = [[column[i] for i in order] for column in (keys, captions, groups)]
    assert by_key == {moved[0][i]: moved[0][j] for i, j in enumerate(partners(*moved))}


def test_no_smaller_number_could_be_left_out():
    """All assignments of five captions, one by one, leave out as many at least."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        captions = [f"c{k}" for k in rng.integers(0, 3, 5)]
        groups = [f"g{k}" for k in rng.integers(0, 3, 5)]
        most = max(
            sum(is_allowed(i, j, captions, groups) for i, j in enumerate(order))
            for order in permutations(range(5))
        )
        found = partners([f"k{i}" for i in range(5)], captions, groups)
        assert (found >= 0).sum() == most
        given = [(i, j) for i, j in enumerate(found) if j >= 0]
        assert len({j for _, j in given}) == most
        assert all(is_allowed(i, j, captions, groups) for i, j in given)


def test_where_all_captions_read_alike_there_is_nothing_to_exchange():
    assert partners(["a", "b"], ["One!", "one"], ["1", "2"]).tolist() == [-1, -1]
    items, *_ = planted(4)
    assert len(Exchanged.of(items, ["same"] * 4)) == 0


def test_captions_of_signs_alone_are_compared_by_their_signs():
    assert reads_as("??") != reads_as("!!")
    assert reads_as("猫、犬") == reads_as("猫 犬")


# The fit's interval


def test_the_interval_of_the_fit_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        of_group = rng.lognormal(0, 0.5, 40).repeat(2)
        effect = of_group * rng.lognormal(0, 0.3, 80)
        gain = 0.4 * effect + 0.3 * (rng.normal(size=40).repeat(2) + rng.normal(size=80))
        found = fit(gain, effect, [f"g{i // 2}" for i in range(80)])
        covered += found.low < 0.4 < found.high
    assert 0.925 < covered / 600 < 0.975


def test_without_any_effect_the_fit_is_not_a_number():
    found = fit(np.zeros(4), np.zeros(4), list("abcd"))
    assert np.isnan(found.value)
    assert np.isnan(found.low)
