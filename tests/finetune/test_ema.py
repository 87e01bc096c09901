"""The moving average against its closed form."""

from __future__ import annotations

import pytest
import torch

from finetune.ema import Ema, copy_into, swapped_in


def test_it_follows_a_constant_as_the_product_of_its_decays():
    """From 0 towards 1, s_n = 1 - prod d_k with d_k = min(decay, (1 + k) / (10 + k))."""
    weights = {"w": torch.zeros(3)}
    ema = Ema(weights, decay=0.6)
    weights["w"].fill_(1.0)
    product = 1.0
    for step in range(1, 30):
        ema.update(weights, step)
        product *= min(0.6, (1 + step) / (10 + step))
        assert ema.shadow["w"][0].item() == pytest.approx(1 - product, abs=1e-6)


def test_it_is_the_recurrence_for_weights_that_move():
    torch.manual_seed(0)
    path = torch.randn(40, 2)
    weights = {"w": path[0].clone()}
    ema = Ema(weights, decay=0.9)
    expected = path[0].double()
    for step in range(1, 40):
        weights["w"].copy_(path[step])
        ema.update(weights, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * path[step].double()
    torch.testing.assert_close(ema.shadow["w"].double(), expected, atol=1e-6, rtol=1e-5)


def test_swapping_gives_back_the_very_weights_even_after_an_error():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def fail() -> None:
        with swapped_in({"w": torch.tensor([5.0, 6.0])}, {"w": weight}):
            assert weight.tolist() == [5.0, 6.0]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert weight.tolist() == [1.0, 2.0]
    assert weight.requires_grad


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match="2 names differ, such as 'a'"):
        copy_into({"a": torch.zeros(1)}, {"b": torch.zeros(1)})
