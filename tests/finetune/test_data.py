"""The plan: permutations, shares of ranks, and batches that depend on their number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.cache import EncodedSplit
from finetune.cache.rows import Rows
from finetune.conditioning import Conditioning
from finetune.data import Batch, Batches, SamplePlan, epoch_order, keyed_seed


def split(size: int = 10) -> EncodedSplit:
    """Sample i has the latent i and i % 3 + 1 captions, caption c of it the hidden state 100 i + c."""
    captions = [100 * i + c for i in range(size) for c in range(i % 3 + 1)]
    return EncodedSplit(
        keys=[f"k{i}" for i in range(size)],
        captions=[f"caption {i}" for i in range(size)],
        latents=in_files("latent", torch.arange(size).float().reshape(-1, 1, 1, 1)),
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
