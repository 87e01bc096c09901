"""Stable Diffusion 1 and 2: one text encoder, whose hidden states the U-Net attends to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from finetune.conditioning import Conditioning
from finetune.crop import Crop
from finetune.models import controlled, parts
from finetune.models.chunks import apart, joined
from finetune.models.config import ModelConfig
from finetune.models.denoiser import takes_captions
from finetune.models.parts import hash_weights
from finetune.models.refusals import mark_of, refuse_layer
from finetune.objective import NoiseSchedule

# Settings that change what an encoder computes and leave no trace in its weights.
_VAE = ("act_fn", "norm_num_groups", "scaling_factor")
_TEXT = (
    "hidden_act",
    "num_attention_heads",
    "layer_norm_eps",
    "eos_token_id",
    "use_attention_mask",
)


@dataclass
class StableDiffusion:
    """The parts of a ``StableDiffusionPipeline``; see :class:`finetune.models.interface.LatentDiffusion`."""

    tokenizer: Any
    text_encoder: Any
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: Any
    schedule: NoiseSchedule
    resolution: int
    clip_skip: int = 1
    chunks: int = 1
    zero_terminal_snr: bool = False
    captions: str = parts.HIDDEN
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def pixels_per_latent(self) -> int:
        """The VAE halves a side between any two of its levels."""
        return parts.pixels_per_latent(self.vae)

    @property
    def device(self) -> torch.device:
        """Where the noise levels are, which never move."""
        return self.schedule.alphas.device

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The VAE and what encodes captions."""
        return (self.vae, self.text_encoder)

    def park(self) -> None:
        """Move them to the CPU until they are needed again."""
        parts.park(self.encoders, self.device)

    def move(self, device: torch.device) -> None:
        """Put all parts onto another device."""
        self.schedule = self.schedule.to(device)
        for module in (self.unet, *self.encoders):
            nn.Module.to(module, device)  # diffusers' own has another type

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] to scaled latents [B, C, h, w], fp32: the VAE's mean, no sample."""
        parts.fetch([self.vae], self.device)
        posterior = self.vae.encode(images.to(self.device)).latent_dist  # type: ignore[union-attr]
        return posterior.mean * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def posterior_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents."""
        parts.fetch([self.vae], self.device)
        posterior = self.vae.encode(images.to(self.device)).latent_dist  # type: ignore[union-attr]
        factor = self.vae.config["scaling_factor"]
        return posterior.mean * factor, posterior.std * factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] to pixels [B, 3, H, W], about -1 ... 1."""
        parts.fetch([self.vae], self.device)
        return self.vae.decode(latents / self.vae.config["scaling_factor"]).sample  # type: ignore[union-attr]

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The one there is."""
        return {"text_encoder": self.text_encoder}

    def unread_text_modules(self) -> dict[str, list[str]]:
        """The layers behind the one that is read; its norm is read whatever the layer."""
        behind = parts.last_layers(self.text_encoder, self.clip_skip - 1)
        return {"text_encoder": behind} if behind else {}

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Conditioning:
        """``hidden`` [B, L, D], exactly as ``StableDiffusionPipeline`` computes it for its U-Net; or token ids."""
        tokens = self.tokens(captions)
        return tokens if self.captions == parts.TOKENS else self.encode_tokens(tokens)

    def tokens(self, captions: Sequence[str]) -> Conditioning:
        """``input_ids`` [B, chunks × L], and ``attention_mask`` like it, if the text encoder takes one."""
        found = parts.tokens(self.tokenizer, captions, self.chunks)
        entries = {parts.IDS: found.input_ids}
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            entries["attention_mask"] = found.attention_mask
        return Conditioning(entries)

    @property
    def _more_chunks(self) -> list[int]:
        return [self.chunks] if self.chunks > 1 else []

    def encode_tokens(self, conditioning: Conditioning) -> Conditioning:
        """``hidden`` [B, L, D]."""
        return parts.with_hidden(conditioning, {"hidden": self._hidden(conditioning)})

    def _hidden(self, tokens: Conditioning, clip_skip: int | None = None) -> Tensor:
        """Hidden states [B, L, D] of a layer, counted from the last one, and the final layer norm."""
        ids, mask = (tokens.tensors.get(name) for name in (parts.IDS, "attention_mask"))
        assert ids is not None
        ids = apart(ids, self.chunks).to(self.device)
        mask = None if mask is None else apart(mask, self.chunks).to(self.device)
        parts.fetch([self.text_encoder], self.device)
        with parts.encoding([self.text_encoder], self.device):
            return self._layer(ids, mask, clip_skip or self.clip_skip)

    def _layer(self, ids: Tensor, mask: Tensor | None, clip_skip: int) -> Tensor:
        if clip_skip == 1:
            return joined(self.text_encoder(ids, attention_mask=mask)[0], self.chunks)
        refuse_layer(clip_skip, self.text_encoder.config.num_hidden_layers)
        found = self.text_encoder(ids, attention_mask=mask, output_hidden_states=True)
        # Where it is depends on the version of transformers.
        inner = getattr(self.text_encoder, "text_model", self.text_encoder)
        return joined(inner.final_layer_norm(found.hidden_states[-clip_skip]), self.chunks)

    def picture_entries(self, crops: Sequence[Crop]) -> dict[str, Tensor]:
        """None: the U-Net does not know a picture's size."""
        return {}

    def cut_off(self, caption: str) -> str:
        """The end of a caption that the tokenizer cuts off; "" if there is none."""
        return parts.cut_off(self.tokenizer, caption, self.chunks)

    @torch.no_grad()
    def prompt_arguments(
        self, prompts: Sequence[str], negative: Sequence[str], clip_skip: int | None = None
    ) -> dict[str, Any]:
        """Hidden states of prompts and negative prompts, both of the same layer."""
        return {
            "prompt_embeds": self._hidden(self.tokens(prompts), clip_skip),
            "negative_prompt_embeds": self._hidden(self.tokens(negative), clip_skip),
        }

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The U-Net's output [B, C, h, w] for x_t and ``hidden``."""
        if takes_captions(network):
            return network(noisy, timesteps, conditioning)
        return predict(network, noisy, timesteps, parts.encoded(self, conditioning))

    def pipeline(self, unet: nn.Module | None = None) -> StableDiffusionPipeline:
        """A pipeline to sample from, sharing these weights; with another U-Net, if one is given."""
        return StableDiffusionPipeline(**self._parts(unet))

    def picture_pipeline(self, unet: nn.Module | None = None) -> StableDiffusionImg2ImgPipeline:
        """The same, to sample from a picture instead of from noise."""
        return StableDiffusionImg2ImgPipeline(**self._parts(unet))

    def _parts(self, unet: nn.Module | None) -> dict[str, Any]:
        parts.fetch(self.encoders, self.device)
        return {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "unet": unet or self.unet,  # with adapters or without
            "scheduler": self.scheduler,
            "safety_checker": None,  # it blacks out pictures, silently
            "feature_extractor": None,
            "requires_safety_checker": False,
        }

    def image_fingerprint(self) -> str:
        """Hex digest of the VAE and its settings."""
        return self._encoders()["images"]

    def caption_fingerprint(self) -> str:
        """Hex digest of tokenizer and text encoder; of token ids, of the former alone."""
        if self.captions == parts.TOKENS:
            masked = getattr(self.text_encoder.config, "use_attention_mask", False)
            return parts.tokens_fingerprint([self.tokenizer], masked, *self._more_chunks)
        return self._encoders()["captions"]

    def _encoders(self) -> dict[str, str]:
        """Digests of VAE and text encoder, and ``both``, which checkpoints of all versions have."""
        if "both" not in self._digests:
            tokens = parts.vocabulary(self.tokenizer) + mark_of(self.clip_skip, self.chunks)
            vae = [self.vae.config[name] for name in _VAE]
            text = [getattr(self.text_encoder.config, name, None) for name in _TEXT]
            images = hashlib.sha256(json.dumps(vae).encode())
            captions = hashlib.sha256(tokens + json.dumps(text).encode())
            both = hashlib.sha256(f"{self.resolution} {self.vae.config['scaling_factor']}".encode())
            both.update(tokens)
            hash_weights(self.vae, images, both)
            hash_weights(self.text_encoder, captions, both)
            found = {"images": images, "captions": captions, "both": both}
            self._digests |= {name: digest.hexdigest() for name, digest in found.items()}
        return self._digests

    def fingerprint(self) -> str:
        """Hex digest of the encoders, the U-Net and the scheduler's settings."""
        if "model" not in self._digests:
            settings = [*self.scheduler.config.items(), self._encoders()["both"]]
            digest = hashlib.sha256(repr(settings).encode())
            hash_weights(self.unet, digest)
            self._digests["model"] = digest.hexdigest()
        return self._digests["model"]


def predict(
    network: Callable[..., Any], noisy: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """The output [B, C, h, w] of a U-Net that is conditioned on ``hidden`` alone."""
    further = controlled.arguments(network, conditioning)
    return network(noisy, timesteps, encoder_hidden_states=conditioning["hidden"], **further).sample


def load_pipeline(config: ModelConfig) -> StableDiffusionPipeline:
    """The pipeline as diffusers loads it, in fp32, without a safety checker.

    Raises:
        UserError: the files are not there, or the hub does not answer.
    """
    return parts.from_pretrained(
        StableDiffusionPipeline, config, safety_checker=None, requires_safety_checker=False
    )


def load_model(config: ModelConfig, device: torch.device | str = "cpu") -> StableDiffusion:
    """Load the pipeline's parts onto ``device``, frozen and in evaluation mode.

    Raises:
        UserError: see :func:`load_pipeline` and ``finetune.models.parts.frozen_parts``.
    """
    pipeline = load_pipeline(config)
    modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    layers = pipeline.text_encoder.config.num_hidden_layers
    refuse_layer(config.clip_skip, layers, "model.clip_skip")
    scheduler, schedule = parts.frozen_parts(config, pipeline, modules, device)
    return StableDiffusion(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        vae=pipeline.vae,
        unet=pipeline.unet,
        scheduler=scheduler,
        schedule=schedule,
        resolution=config.resolution,
        clip_skip=config.clip_skip,
        chunks=config.chunks,
    )
