"""Convert the starter CLIP's text tower to the transformers model that diffusers pipelines use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def convert_text_tower(text: Any) -> Any:
    """Convert an open_clip ``TextTransformer`` to a ``CLIPTextModel`` with the same hidden states.

    open_clip keeps the query, key and value projections in one matrix, transformers in three. The final
    projection is left out: a U-Net attends to the hidden states before it.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    blocks = list(text.transformer.resblocks)
    last_token = text.vocab_size - 1
    config = CLIPTextConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.width,
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        projection_dim=text.output_dim,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        max_position_embeddings=text.context_length,
        hidden_act="gelu",
        bos_token_id=last_token - 1,
        eos_token_id=last_token,
        pad_token_id=last_token,
    )
    model = CLIPTextModel(config)
    wanted = set(model.state_dict())
    prefix = "text_model." if any(name.startswith("text_model.") for name in wanted) else ""
    weights = {prefix + name: value for name, value in _renamed(text, blocks).items()}
    model.load_state_dict(weights)
    return model.eval()


def _renamed(text: Any, blocks: list[Any]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {
        "embeddings.token_embedding.weight": text.token_embedding.weight,
        "embeddings.position_embedding.weight": text.positional_embedding,
    }
    weights |= _of("final_layer_norm", text.ln_final)
    for index, block in enumerate(blocks):
        layer = f"encoder.layers.{index}"
        projections = zip(
            ("q_proj", "k_proj", "v_proj"),
            block.attn.in_proj_weight.chunk(3),
            block.attn.in_proj_bias.chunk(3),
            strict=True,
        )
        for name, weight, bias in projections:
            weights[f"{layer}.self_attn.{name}.weight"] = weight
            weights[f"{layer}.self_attn.{name}.bias"] = bias
        weights |= _of(f"{layer}.self_attn.out_proj", block.attn.out_proj)
        weights |= _of(f"{layer}.layer_norm1", block.ln_1)
        weights |= _of(f"{layer}.layer_norm2", block.ln_2)
        weights |= _of(f"{layer}.mlp.fc1", block.mlp.c_fc)
        weights |= _of(f"{layer}.mlp.fc2", block.mlp.c_proj)
    return {name: value.detach().clone() for name, value in weights.items()}


def _of(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{field}": value for field, value in module.state_dict().items()}


@torch.inference_mode()
def hidden_states(text_encoder: Any, tokenizer: Any, captions: list[str]) -> Tensor:
    """The text states that ``StableDiffusionPipeline`` conditions on: (N, context, width), with padding."""
    tokens = tokenizer(
        captions,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    parts = tokens.to(text_encoder.device).split(256)
    return torch.cat([text_encoder(part).last_hidden_state.cpu() for part in parts])
