"""The starter CLIP's figure and its text encoding, against direct computations."""

import pytest
import torch

from workflows import starter_clip


def test_separation_counts_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(0, 6, (12, 12), generator=generator).float()  # ties included
    wins, pairs = 0.0, 0
    for own in similarity.diagonal():
        for row in range(12):
            for column in range(12):
                if row != column:
                    other = similarity[row, column]
                    wins += 1.0 if own > other else 0.5 if own == other else 0.0
                    pairs += 1
    assert starter_clip.separation(similarity) == pytest.approx(wins / pairs)


def test_separation_of_a_perfect_and_of_a_blind_model() -> None:
    assert starter_clip.separation(torch.eye(5)) == 1.0
    assert starter_clip.separation(torch.zeros(5, 5)) == 0.5


@torch.inference_mode()
def test_captions_at_their_own_length_encode_as_open_clip_does() -> None:
    torch.manual_seed(0)
    model = starter_clip.build_clip().eval()
    tokens = torch.full((2, starter_clip.CONTEXT_LENGTH), starter_clip.VOCAB_SIZE - 1)
    tokens[0, :5] = torch.tensor([4608, 300, 301, 302, 303])
    tokens[1, :3] = torch.tensor([4608, 77, 78])
    expected = model.encode_text(tokens, normalize=True)  # type: ignore[operator]
    assert torch.allclose(starter_clip.encode_text(model, tokens), expected, atol=1e-6)
