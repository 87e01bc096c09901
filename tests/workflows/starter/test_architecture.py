"""The starter CLIP's text encoding, compared with open_clip's."""

import torch

from workflows.starter import architecture


@torch.inference_mode()
def test_unpadded_captions_encode_as_in_open_clip() -> None:
    torch.manual_seed(0)
    model = architecture.build_clip().eval()
    tokens = torch.full((2, architecture.CONTEXT_LENGTH), architecture.VOCAB_SIZE - 1)
    tokens[0, :5] = torch.tensor([4608, 300, 301, 302, 303])
    tokens[1, :3] = torch.tensor([4608, 77, 78])
    expected = model.encode_text(tokens, normalize=True)  # type: ignore[operator]
    assert torch.allclose(architecture.encode_text(model, tokens), expected, atol=1e-6)
