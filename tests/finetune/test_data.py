"""The plan: permutations, shares of ranks, and batches that depend on their number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.cache import EncodedSplit
from finetune.cache.rows import Rows
from finetune.conditioning import Conditioning
from finetune.config import ObjectiveConfig
from finetune.data import Batch, Batches, SamplePlan, WeightedPlan, epoch_order, keyed_seed


def split(size: int = 10, shape: tuple[int, int, int] = (1, 1, 1)) -> EncodedSplit:
    """Sample i has the latent i and i % 3 + 1 captions, caption c of it the hidden state 100 i + c."""
    captions = [100 * i + c for i in range(size) for c in range(i % 3 + 1)]
    return EncodedSplit(
        keys=[f"k{i}" for i in range(size)],
        captions=[f"caption {i}" for i in range(size)],
        latents=in_files(
            "latent", torch.arange(size).float().reshape(-1, 1, 1, 1).expand(-1, *shape)
        ),
        conditioning=in_files("hidden", torch.tensor(captions).reshape(-1, 1, 1).half()),
        offsets=np.cumsum([0, *(i % 3 + 1 for i in range(size))]),
        empty=hidden(torch.full((1, 1, 1), -1.0)),
    )


def in_files(name: str, values: torch.Tensor) -> Rows:
    """Rows of which every third is in the first file, and so on, the last one first."""
    files = [{name: values[start::3].flip(0)} for start in range(3)]
    rows = np.arange(len(values))
    sizes = np.array([len(file[name]) for file in files])
    return Rows(files, rows % 3, sizes[rows % 3] - 1 - rows // 3)


def hidden(states: torch.Tensor) -> Conditioning:
    return Conditioning({"hidden": states})


def batches(**changes) -> Batches:
    options = {"batch_size": 4, "caption_dropout": 0.0, "timesteps": 1000, "seed": 7}
    return Batches(split(), **options | changes)


def tensor_of(batch: Batch, name: str) -> torch.Tensor:
    return batch.conditioning["hidden"] if name == "hidden" else getattr(batch, name)


def test_noise_is_a_samples_own():
    """Of its place in the run, so not of the size of batches, and of its key; another place has other noise."""
    large, small = batches(batch_size=6)(0), batches(batch_size=2)(2)
    assert large.keys[4:] == small.keys
    assert torch.equal(large.noise[4:], small.noise)
    assert not torch.equal(large.noise[0], large.noise[1])
    other = batches()
    other.split.keys = [f"other-{key}" for key in other.split.keys]
    assert not torch.equal(other(0).noise[0], batches()(0).noise[0])


def test_each_epoch_is_a_permutation_of_its_own():
    orders = [epoch_order(0, epoch, 50) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], epoch_order(1, 0, 50))


def test_the_plan_goes_on_across_epochs_and_can_start_anywhere():
    whole = SamplePlan(0, 10)(0, 40)
    assert [sorted(whole[i : i + 10]) for i in range(0, 40, 10)] == [list(range(10))] * 4
    np.testing.assert_array_equal(SamplePlan(0, 10)(7, 26), whole[7:33])


def test_ranks_share_each_batch_without_overlap():
    for number in range(6):
        whole = batches()(number)
        shares = [batches(rank=rank, world_size=2)(number) for rank in range(2)]
        for name in ("latents", "noise", "timesteps", "hidden"):
            merged = torch.empty_like(tensor_of(whole, name))
            for rank, share in enumerate(shares):
                merged[rank::2] = tensor_of(share, name)
            torch.testing.assert_close(merged, tensor_of(whole, name), atol=0, rtol=0)
        assert [
            key for pair in zip(*(s.keys for s in shares), strict=True) for key in pair
        ] == whole.keys


def test_a_batch_does_not_depend_on_those_before_it():
    endless = batches()
    for number in range(9):
        reached = endless(number)
    fresh = batches()(8)
    assert reached.keys == fresh.keys
    assert torch.equal(reached.noise, fresh.noise)
    assert torch.equal(reached.timesteps, fresh.timesteps)
    assert not torch.equal(fresh.noise, batches()(7).noise)


def test_samples_come_with_their_own_latent_and_one_of_their_own_captions():
    seen = set()
    for number in range(60):
        batch = batches(seed=1)(number)
        hidden = batch.conditioning["hidden"]
        for key, latent, text in zip(batch.keys, batch.latents, hidden, strict=True):
            i = int(key[1:])
            assert latent.item() == i
            caption = int(text.item()) - 100 * i
            assert 0 <= caption <= i % 3
            seen.add((i, caption))
    assert len(seen) == sum(i % 3 + 1 for i in range(10))


def test_caption_dropout_drops_its_share():
    texts = torch.cat(
        [
            batches(caption_dropout=0.3)(number).conditioning["hidden"].flatten()
            for number in range(500)
        ]
    )
    share = (texts == -1).float().mean().item()
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


def test_timesteps_are_stratified_over_the_batch_and_uniform_for_each_sample():
    drawn = torch.stack([batches(batch_size=8)(number).timesteps for number in range(400)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    assert torch.equal(drawn // 125, torch.arange(8).expand(400, 8))
    # one sample's timesteps over time: its place in the batch is random, so its law is uniform
    mine = torch.tensor(
        [
            int(t)
            for number in range(800)
            for key, t in zip(*(lambda b: (b.keys, b.timesteps))(batches()(number)), strict=True)
            if key == "k3"
        ]
    )
    counts = torch.histc(mine.float(), bins=4, min=0, max=1000)
    expected = len(mine) / 4
    assert ((counts - expected).abs() < 4 * expected**0.5).all()


def drawn(count: int, name: str = "timesteps", **settings) -> torch.Tensor:
    made = batches(batch_size=8, objective=ObjectiveConfig(**settings))
    return torch.stack([getattr(made(number), name) for number in range(count)])


def test_uniform_timesteps_are_drawn_each_for_itself():
    """The variance of a batch's mean is that of one sample over 8; stratified, it is 64 times smaller again."""
    timesteps = drawn(2_000, timesteps="uniform").double()
    assert timesteps.mean().item() == pytest.approx(499.5, abs=4 * 289 / 16_000**0.5)
    expected = 1000**2 / 12 / 8
    assert timesteps.mean(dim=1).var().item() == pytest.approx(expected, rel=4 * (2 / 2_000) ** 0.5)
    assert drawn(2_000).double().mean(dim=1).var().item() < expected / 32


def test_logit_normal_timesteps_follow_their_law():
    """The share of timesteps below t is the normal distribution at (logit(t / T) - mean) / std."""
    from scipy.stats import norm

    timesteps = drawn(1_000, timesteps="logit_normal", logit_mean=-0.5, logit_std=0.8).flatten()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    for t in (100, 300, 500, 800):
        expected = norm.cdf((np.log(t / (1000 - t)) + 0.5) / 0.8)
        assert (timesteps < t).double().mean().item() == pytest.approx(expected, abs=0.01)


def test_an_offset_gives_each_channel_a_mean_of_its_own():
    """One number of variance 0.3^2 more for each sample and channel; the noise around it is as without."""
    plain = torch.cat([wide_batches()(number).noise for number in range(200)])
    offset = torch.cat([wide_batches(noise_offset=0.3)(number).noise for number in range(200)])
    added = offset - plain
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)
    assert added[:, :, 0, 0].std().item() == pytest.approx(0.3, rel=0.1)
    correlation = torch.corrcoef(added[:, :, 0, 0].T)[0, 1].item()
    assert abs(correlation) < 4 / len(added) ** 0.5  # between the channels


def test_a_perturbed_input_leaves_the_target_as_it_is():
    plain, perturbed = wide_batches()(3), wide_batches(input_perturbation=0.1)(3)
    assert plain.added is None
    assert torch.equal(plain.noise, perturbed.noise)
    more = torch.cat(
        [
            batch.added - batch.noise
            for batch in map(wide_batches(input_perturbation=0.1), range(200))
        ]
    )
    assert more.std().item() == pytest.approx(0.1, rel=0.05)
    assert next(perturbed.split(2)).added.shape == (2, 2, 3, 3)


def wide_batches(**settings) -> Batches:
    """Of latents with two channels of 3 x 3."""
    made = batches(objective=ObjectiveConfig(**settings))
    made.split = split(shape=(2, 3, 3))
    return made


def test_micro_batches_cover_the_batch_in_equal_parts():
    batch = batches()(0)
    parts = list(batch.split(2))
    assert [len(part.keys) for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.noise for part in parts]), batch.noise)
    assert parts[0].keys + parts[1].keys == batch.keys


def test_keyed_seeds_are_known_numbers():
    """Checkpoints of older versions resume only while these stay what they are."""
    assert keyed_seed(0, "batch", 1) == keyed_seed(0, "batch", 1) != keyed_seed(0, "batch", 2)
    assert keyed_seed(1, 23) != keyed_seed(12, 3)
    assert 0 <= keyed_seed("x") < 2**63


SOURCES = {"mine": np.arange(7), "photos": np.arange(100, 113), "rare": np.arange(200, 202)}
WEIGHTS = {"mine": 2.0, "photos": 0.6, "rare": 1.0}


def owners(samples: np.ndarray) -> np.ndarray:
    return np.array(list(SOURCES))[samples // 100]


def test_a_source_has_the_share_of_its_weight_times_its_size_at_every_round():
    """floor(R * weight * size / largest weight) samples after R rounds, by hand for R = 1 ... 40."""
    plan = WeightedPlan(0, SOURCES, WEIGHTS)
    each = {"mine": (7, 1), "photos": (39, 10), "rare": (1, 1)}  # 7 * 2/2, 13 * 0.6/2, 2 * 1/2
    for rounds in range(1, 41):
        counts = {name: rounds * top // bottom for name, (top, bottom) in each.items()}
        found = owners(plan(0, sum(counts.values())))
        assert {name: int((found == name).sum()) for name in SOURCES} == counts
    total = 7 + 3.9 + 1
    assert plan.shares == pytest.approx(
        {"mine": 7 / total, "photos": 3.9 / total, "rare": 1 / total}
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_each_source_goes_through_permutations_of_its_own(seed: int):
    found = WeightedPlan(seed, SOURCES, WEIGHTS)(0, 1000)
    for name, places in SOURCES.items():
        own = found[owners(found) == name]
        passes = len(own) // len(places)
        assert passes > 5
        orders = own[: passes * len(places)].reshape(passes, -1)
        assert all(sorted(order) == places.tolist() for order in orders)
        if len(places) > 2:
            assert len({tuple(order) for order in orders.tolist()}) > 0.9 * passes
        alone = WeightedPlan(seed, {name: places}, {name: 3.0})(0, 50)
        np.testing.assert_array_equal(alone, own[:50])  # whatever the others do


def test_a_weighted_plan_can_start_anywhere_and_forgets_the_order_of_typing():
    whole = WeightedPlan(0, SOURCES, WEIGHTS)(0, 300)
    plan = WeightedPlan(0, dict(reversed(SOURCES.items())), WEIGHTS)
    for start, count in ((0, 4), (4, 4), (11, 30), (250, 50), (3, 1), (123, 7)):
        np.testing.assert_array_equal(plan(start, count), whole[start : start + count])
    assert not np.array_equal(WeightedPlan(1, SOURCES, WEIGHTS)(0, 300), whole)


def test_the_sources_of_a_round_are_mixed():
    found = owners(WeightedPlan(0, SOURCES, {**WEIGHTS, "photos": 2.0})(0, 20))
    changes = (found[1:] != found[:-1]).sum()
    assert 5 < changes < 18  # two blocks would have one


def test_batches_follow_a_plan_that_is_given():
    plan = WeightedPlan(3, {"a": np.array([1, 4]), "b": np.array([7])}, {"a": 1.0, "b": 1.0})
    made = batches(plan=plan, batch_size=4)
    keys = [key for number in range(6) for key in made(number).keys]
    assert keys == [f"k{index}" for index in plan(0, 24)]
    halves = [batches(plan=plan, rank=rank, world_size=2)(3).keys for rank in (0, 1)]
    assert sorted([*halves[0], *halves[1]]) == sorted(made(3).keys)
