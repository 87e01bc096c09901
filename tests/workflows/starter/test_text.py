"""The converted text tower, compared with open_clip's on random weights."""

from pathlib import Path

import torch

from workflows.starter.architecture import build_clip
from workflows.starter.text import convert_text_tower, hidden_states
from workflows.starter.tokenizer import load_tokenizer

CAPTIONS = ["", "red heart", "woman astronaut medium-dark skin tone"]


@torch.inference_mode()
def test_hidden_states_and_pooling_are_open_clips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = build_clip().eval().text
    for parameter in tower.parameters():  # biases and norms start as constants: make them random
        parameter.add_(torch.randn_like(parameter) * 0.05)
    tokenizer = load_tokenizer(tmp_path)
    tokens = tokenizer(
        CAPTIONS, padding="max_length", max_length=32, truncation=True, return_tensors="pt"
    ).input_ids
    embedded = tower.token_embedding(tokens) + tower.positional_embedding
    expected = tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask))
    converted = convert_text_tower(tower)
    assert torch.allclose(hidden_states(converted, tokenizer, CAPTIONS), expected, atol=1e-5)
    pooled = converted(tokens).pooler_output @ tower.text_projection
    assert torch.allclose(pooled, tower(tokens), atol=1e-5)
