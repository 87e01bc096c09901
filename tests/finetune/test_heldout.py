"""The grid: its timesteps, noise that belongs to keys, and losses that nothing else moves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.conditioning import Conditioning
from finetune.heldout import HeldoutGrid, HeldoutItems, choose, grid_losses, relative, spread
from finetune.models import load_model
from finetune.models.config import ModelConfig

GRID = HeldoutGrid(bins=5, draws=2, seed=3)


@pytest.fixture(scope="module")
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


@pytest.fixture(scope="module")
def items(model):
    generator = torch.Generator().manual_seed(0)
    return HeldoutItems(
        keys=[f"key-{i}" for i in range(7)],
        latents=torch.randn(7, 4, 4, 4, generator=generator),
        conditioning=Conditioning({"hidden": torch.randn(7, 8, 16, generator=generator)}),
        groups=[f"group-{i // 2}" for i in range(7)],
    )


def test_timesteps_are_stratified_midpoints():
    timesteps = HeldoutGrid(bins=10, draws=2).timesteps(1000)
    assert timesteps[0].tolist() == [25, 75]
    assert timesteps[9].tolist() == [925, 975]
    assert (timesteps // 100 == torch.arange(10)[:, None]).all()


def test_losses_do_not_depend_on_batch_size_order_or_company(model, items):
    whole = grid_losses(model, model.unet, items, GRID, batch_size=70)
    assert whole.shape == (7, 5, 2)
    one_by_one = grid_losses(model, model.unet, items, GRID, batch_size=1)
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-5)
    backwards = HeldoutItems(
        items.keys[::-1],
        items.latents.flip(0),
        items.conditioning.take(list(range(6, -1, -1))),
        items.groups[::-1],
    )
    np.testing.assert_allclose(
        grid_losses(model, model.unet, backwards, GRID, batch_size=9)[::-1],
        whole,
        rtol=1e-5,
    )
    alone = grid_losses(model, model.unet, items.take(slice(3, 4)), GRID, batch_size=4)
    np.testing.assert_allclose(alone[0], whole[3], rtol=1e-5)


def test_measuring_leaves_mode_and_random_state_alone(model, items):
    model.unet.train()
    state = torch.get_rng_state()
    grid_losses(model, model.unet, items, GRID, batch_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.unet.training
    model.unet.eval()


def test_each_cell_is_the_loss_at_its_own_timestep_and_noise(model, items):
    """An independent walk over the grid, one forward pass at a time."""
    losses = grid_losses(model, model.unet, items, GRID, batch_size=16)
    b, r, i = 3, 1, 5
    t = int((b + (r + 0.5) / 2) * 1000 / 5)
    noise = GRID.noise("key-5", b, r, torch.Size([4, 4, 4]))
    alpha, sigma = model.schedule.alphas[t], model.schedule.sigmas[t]
    with torch.no_grad():
        noisy = alpha * items.latents[i] + sigma * noise
        hidden = items.conditioning["hidden"][i : i + 1]
        predicted = model.unet(noisy[None], t, encoder_hidden_states=hidden).sample[0]
    target = alpha * noise - sigma * items.latents[i]  # the tiny model predicts v
    assert losses[i, b, r] == pytest.approx(((predicted - target) ** 2).mean().item(), rel=1e-5)


def test_noise_depends_on_key_cell_and_seed_and_is_normal():
    shape = torch.Size([4, 16, 16])
    noises = {
        (key, b, r, seed): HeldoutGrid(seed=seed).noise(key, b, r, shape)
        for key in ("a", "b")
        for b in (0, 1)
        for r in (0, 1)
        for seed in (0, 1)
    }
    stacked = torch.stack(list(noises.values()))
    correlation = torch.corrcoef(stacked.flatten(1)) - torch.eye(len(noises))
    assert correlation.abs().max() < 5 / 1024**0.5
    assert stacked.std().item() == pytest.approx(1, abs=0.03)


def test_a_perfect_predictor_has_no_loss(model, items):
    known = {key: items.latents[i] for i, key in enumerate(items.keys)}

    class Perfect(torch.nn.Module):
        """Knows which clean latent it is looking at from the text, whose first number was planted."""

        def forward(self, noisy, t, encoder_hidden_states):
            clean = torch.stack(
                [known[f"key-{int(row)}"] for row in encoder_hidden_states[:, 0, 0]]
            )
            alpha = model.schedule.alphas[t].reshape(-1, 1, 1, 1)
            sigma = model.schedule.sigmas[t].reshape(-1, 1, 1, 1)
            noise = (noisy - alpha * clean) / sigma
            return SimpleNamespace(sample=alpha * noise - sigma * clean)

    text = items.conditioning["hidden"].clone()
    text[:, 0, 0] = torch.arange(7.0)
    planted = HeldoutItems(items.keys, items.latents, Conditioning({"hidden": text}), items.groups)
    assert grid_losses(model, Perfect(), planted, GRID, batch_size=16).max() < 1e-6


def test_relative_is_one_for_the_base_and_counts_every_bin_alike():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 1.5, (20, 3, 2)) * np.array([1.0, 0.1, 0.05])[None, :, None]
    assert relative(base, base).mean() == pytest.approx(1)
    changed = base.copy()
    changed[:, 2] *= 1.3  # the smallest bin by 30 %: a third of it in the mean
    assert relative(changed, base).mean() == pytest.approx(1.1)


def test_relative_leaves_out_bins_without_a_loss_to_speak_of():
    base = np.ones((4, 3, 1), np.float32)
    base[:, 2] = 0.001
    worse = base.copy()
    worse[:, 2] *= 50
    assert relative(worse, base).mean() == pytest.approx(1)


def test_relative_counts_each_group_once_and_only_the_levels_asked_for():
    base = np.array(
        [[[1.0], [4.0]], [[1.0], [4.0]], [[3.0], [8.0]]]
    )  # two of the three are a group
    groups = ["a", "a", "b"]
    scores = relative(base, base, groups)
    np.testing.assert_allclose(scores, [(1 / 2 + 4 / 6) / 2] * 2 + [(3 / 2 + 8 / 6) / 2])
    assert np.mean([scores[0], scores[2]]) == pytest.approx(1)
    np.testing.assert_allclose(relative(base, base, groups, slice(1, 2)), [4 / 6, 4 / 6, 8 / 6])
    nothing = base * np.array([1.0, 1e-6])[None, :, None]
    with pytest.raises(ValueError, match="negligible"):
        relative(nothing, nothing, groups, slice(1, 2))


class Keys:
    """As much of a split as a choice looks at: 300 samples, of which 200 are one group and 100 are alone."""

    keys = tuple(f"key-{i:03d}" for i in range(300))

    def __len__(self):
        return len(self.keys)

    def groups_of(self, keys):
        return ["many" if key < "key-200" else key for key in keys]


def test_a_choice_is_spread_over_groups():
    split = Keys()
    chosen = [split.keys[i] for i in choose(split, 64, split.groups_of).tolist()]
    assert len(set(split.groups_of(chosen))) == 64
    by_hash = [split.keys[i] for i in choose(split, 64).tolist()]
    assert len(set(split.groups_of(by_hash))) < 32  # without it, no verdict
    everything = choose(split, 1000, split.groups_of).tolist()
    assert sorted(everything) == list(range(300))
    assert len({split.groups_of([split.keys[i]])[0] for i in everything[:101]}) == 101


def test_a_smaller_choice_begins_a_larger_one():
    split = Keys()
    for groups_of in (None, split.groups_of):
        larger = choose(split, 150, groups_of).tolist()
        assert choose(split, 40, groups_of).tolist() == larger[:40]


def test_spreading_keeps_the_order_within_ranks_against_a_simple_count():
    draw = np.random.default_rng(0)
    groups = [f"g{n}" for n in draw.integers(0, 20, 200)]
    found = spread(range(200), groups)
    ranks = [groups[:place].count(groups[place]) for place in range(200)]
    assert found == [place for rank in range(200) for place in range(200) if ranks[place] == rank]


def test_samples_without_groups_are_chosen_by_key_alone():
    split = Keys()
    assert choose(split, 64, list).tolist() == choose(split, 64).tolist()
