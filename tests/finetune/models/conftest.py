"""A pipeline of SDXL's shape with random weights: two text encoders, 8×8 latents of 32 px pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def save_xl_pipeline(folder: Path, **settings) -> Path:
    """Write it; ``settings`` are the pipeline's own, such as ``force_zeros_for_empty_prompt``."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    tokens = [*letters, "!", "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}

    def text(hidden: int, layers: int, activation: str, pad: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=8,
            projection_dim=12,
            hidden_act=activation,
            bos_token_id=vocab["<|startoftext|>"],
            eos_token_id=vocab["<|endoftext|>"],
            pad_token_id=vocab[pad],
        )

    def tokenizer(pad: str) -> CLIPTokenizer:
        return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=8, pad_token=pad)

    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 4, 8),
            norm_num_groups=2,
            latent_channels=4,
            sample_size=32,
            scaling_factor=1.5,
            force_upcast=True,
        ),
        text_encoder=CLIPTextModel(text(16, 2, "quick_gelu", "<|endoftext|>")),
        text_encoder_2=CLIPTextModelWithProjection(text(8, 3, "gelu", "!")),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            norm_num_groups=4,
            cross_attention_dim=24,
            attention_head_dim=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 12,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
        **settings,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def xl_dir(tmp_path_factory) -> Path:
    return save_xl_pipeline(tmp_path_factory.mktemp("models") / "tiny-xl")
