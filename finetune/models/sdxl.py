"""Stable Diffusion XL: two text encoders, a pooled text, and the size and crop of each picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from curate.run.schema import UserError
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
_VAE = ("act_fn", "norm_num_groups", "scaling_factor", "latents_mean", "latents_std")
_TEXT = ("hidden_act", "num_attention_heads", "layer_norm_eps", "eos_token_id")
_GIVEN = "given"  # an entry of tokens, see StableDiffusionXL.tokens
_TIME_IDS = 6  # of a picture, see StableDiffusionXL.picture_entries


@dataclass
class StableDiffusionXL:
    """The parts of a ``StableDiffusionXLPipeline``; see :class:`finetune.models.interface.LatentDiffusion`.

    All parts are fp32. So is what the VAE computes, in training and in evaluation: in fp16 its activations
    overflow.

    Attributes:
        zeros_for_empty: whether the conditioning of the empty caption is zeros, as the pipeline's setting
            ``force_zeros_for_empty_prompt`` says and the published model was trained; else it is encoded like any
            other. It holds for caption dropout, for the empty negative prompt and for an empty prompt.
    """

    tokenizer: Any
    tokenizer_2: Any
    text_encoder: Any
    text_encoder_2: Any
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: Any
    schedule: NoiseSchedule
    resolution: int
    zeros_for_empty: bool
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
        return (self.vae, self.text_encoder, self.text_encoder_2)

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
        mean = self.vae.encode(images.to(self.device)).latent_dist.mean  # type: ignore[union-attr]
        centre, spread = self._shift()
        return (mean - centre) * self.vae.config["scaling_factor"] / spread

    @torch.no_grad()
    def posterior_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents."""
        parts.fetch([self.vae], self.device)
        posterior = self.vae.encode(images.to(self.device)).latent_dist  # type: ignore[union-attr]
        centre, spread = self._shift()
        factor = self.vae.config["scaling_factor"]
        return (posterior.mean - centre) * factor / spread, posterior.std * factor / spread

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] to pixels [B, 3, H, W], about -1 ... 1."""
        parts.fetch([self.vae], self.device)
        centre, spread = self._shift()
        unscaled = latents * spread / self.vae.config["scaling_factor"] + centre
        return self.vae.decode(unscaled).sample  # type: ignore[union-attr]

    def _shift(self) -> tuple[Tensor, Tensor]:
        """What some VAEs' latents are centred and divided by, [1, C, 1, 1] each or 0 and 1."""
        known = [self.vae.config.get(name) for name in ("latents_mean", "latents_std")]
        if None in known:
            known = [[0.0], [1.0]]
        centre, spread = (
            torch.tensor(each, device=self.device).view(1, -1, 1, 1) for each in known
        )
        return centre, spread

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """Both."""
        return {"text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    def unread_text_modules(self) -> dict[str, list[str]]:
        """What is behind the layer of the first text encoder that is read; the second one's pooled text is of its last."""
        behind = parts.last_layers(self.text_encoder, self.clip_skip)
        return {"text_encoder": [*behind, "final_layer_norm"]}

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Conditioning:
        """``hidden`` [B, L, D1 + D2] and ``pooled`` [B, P], as ``StableDiffusionXLPipeline`` does; or token ids."""
        tokens = self.tokens(captions)
        return tokens if self.captions == parts.TOKENS else self.encode_tokens(tokens)

    def tokens(self, captions: Sequence[str]) -> Conditioning:
        """``input_ids`` and ``input_ids_2`` [B, chunks × L]; with ``zeros_for_empty`` also ``given`` [B], 0 of the empty caption."""
        entries = parts.token_entries((self.tokenizer, self.tokenizer_2), captions, self.chunks)
        if self.zeros_for_empty:
            entries[_GIVEN] = torch.tensor([int(caption != "") for caption in captions])
        return Conditioning(entries)

    @property
    def _more_chunks(self) -> list[int]:
        return [self.chunks] if self.chunks > 1 else []

    def encode_tokens(self, conditioning: Conditioning) -> Conditioning:
        """``hidden`` [B, L, D1 + D2] and ``pooled`` [B, P]."""
        hidden, pooled = self._encoded(conditioning)
        return parts.with_hidden(conditioning, {"hidden": hidden, "pooled": pooled})

    def _encoded(self, tokens: Conditioning, clip_skip: int | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states of a layer of both encoders, side by side, and the second one's pooled text.

        Layers are counted from the last but one, which the U-Net was trained with; no layer norm follows.
        """
        clip_skip = clip_skip or self.clip_skip
        parts.fetch([self.text_encoder, self.text_encoder_2], self.device)
        states, pooled = [], None
        both = ((parts.IDS, self.text_encoder), (f"{parts.IDS}_2", self.text_encoder_2))
        for _, encoder in both:
            refuse_layer(clip_skip, encoder.config.num_hidden_layers - 1)
        for name, encoder in both:
            ids = apart(tokens[name], self.chunks).to(self.device)
            with parts.encoding([encoder], self.device):
                found = encoder(ids, output_hidden_states=True)
            states.append(joined(found.hidden_states[-clip_skip - 1], self.chunks))
            pooled = found.get("text_embeds")  # which the second one has
        hidden = torch.cat(states, dim=-1)
        assert pooled is not None
        pooled = pooled[:: self.chunks]  # the first chunk's
        if self.zeros_for_empty:
            given = tokens[_GIVEN].to(self.device) > 0
            # Not a product: that of zero and what is not finite is not zero.
            hidden = torch.where(given[:, None, None], hidden, 0.0)
            pooled = torch.where(given[:, None], pooled, 0.0)
        return hidden, pooled

    def picture_entries(self, crops: Sequence[Crop]) -> dict[str, Tensor]:
        """``time_ids`` [B, 6]: height and width before resizing, top and left of the crop, height and width of it."""
        ids = [[*crop.original, *crop.corner, *crop.target] for crop in crops]
        return {"time_ids": torch.tensor(ids, dtype=torch.float32).reshape(-1, _TIME_IDS)}

    def cut_off(self, caption: str) -> str:
        """The end of a caption that one of the tokenizers cuts off, the longer one; "" if there is none."""
        ends = (
            parts.cut_off(each, caption, self.chunks) for each in (self.tokenizer, self.tokenizer_2)
        )
        return max(ends, key=len)

    @torch.no_grad()
    def prompt_arguments(
        self, prompts: Sequence[str], negative: Sequence[str], clip_skip: int | None = None
    ) -> dict[str, Any]:
        """Hidden states and pooled text of prompts and negative prompts, hidden states of the same layer."""
        hidden, pooled = self._encoded(self.tokens(prompts), clip_skip)
        negative_hidden, negative_pooled = self._encoded(self.tokens(negative), clip_skip)
        return {
            "prompt_embeds": hidden,
            "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": negative_hidden,
            "negative_pooled_prompt_embeds": negative_pooled,
        }

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The U-Net's output [B, C, h, w] for x_t, ``hidden``, ``pooled`` and ``time_ids``."""
        if takes_captions(network):
            return network(noisy, timesteps, conditioning)
        conditioning = parts.encoded(self, conditioning)
        sizes = conditioning.tensors.get("time_ids")
        if sizes is None:
            whole = self.picture_entries([Crop.whole(self.resolution)] * len(conditioning))
            sizes = whole["time_ids"].to(noisy.device)
        added = {"text_embeds": conditioning["pooled"], "time_ids": sizes}
        hidden = conditioning["hidden"]
        return network(
            noisy,
            timesteps,
            encoder_hidden_states=hidden,
            added_cond_kwargs=added,
            **controlled.arguments(network, conditioning),
        ).sample

    def pipeline(self, unet: nn.Module | None = None) -> StableDiffusionXLPipeline:
        """A pipeline to sample from, sharing these weights; with another U-Net, if one is given."""
        return StableDiffusionXLPipeline(**self._parts(unet))

    def picture_pipeline(self, unet: nn.Module | None = None) -> StableDiffusionXLImg2ImgPipeline:
        """The same, to sample from a picture instead of from noise."""
        return StableDiffusionXLImg2ImgPipeline(**self._parts(unet))

    def _parts(self, unet: nn.Module | None) -> dict[str, Any]:
        parts.fetch(self.encoders, self.device)
        return {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
            "tokenizer": self.tokenizer,
            "tokenizer_2": self.tokenizer_2,
            "unet": unet or self.unet,  # with adapters or without
            "scheduler": self.scheduler,
            "force_zeros_for_empty_prompt": self.zeros_for_empty,
            "add_watermarker": False,  # it changes the pictures that are measured
        }

    def image_fingerprint(self) -> str:
        """Hex digest of the VAE and its settings, and of the entries that a picture has."""
        if "images" not in self._digests:
            settings = [self.vae.config.get(name) for name in _VAE]
            digest = hashlib.sha256(json.dumps([settings, "time_ids"]).encode())
            hash_weights(self.vae, digest)
            self._digests["images"] = digest.hexdigest()
        return self._digests["images"]

    def caption_fingerprint(self) -> str:
        """Hex digest of both tokenizers and text encoders; of token ids, of the former alone."""
        if self.captions == parts.TOKENS:
            both = (self.tokenizer, self.tokenizer_2)
            return parts.tokens_fingerprint(both, self.zeros_for_empty, *self._more_chunks)
        return self._text()

    def _text(self) -> str:
        """Hex digest of both tokenizers and text encoders."""
        if "captions" not in self._digests:
            digest = hashlib.sha256(json.dumps(["penultimate", self.zeros_for_empty]).encode())
            for tokenizer in (self.tokenizer, self.tokenizer_2):
                digest.update(parts.vocabulary(tokenizer) + mark_of(self.clip_skip, self.chunks))
            for encoder in (self.text_encoder, self.text_encoder_2):
                settings = [getattr(encoder.config, name, None) for name in _TEXT]
                digest.update(json.dumps(settings).encode())
                hash_weights(encoder, digest)
            self._digests["captions"] = digest.hexdigest()
        return self._digests["captions"]

    def fingerprint(self) -> str:
        """Hex digest of the encoders, the U-Net and the scheduler's settings."""
        if "model" not in self._digests:
            encoders = [self.resolution, self.image_fingerprint(), self._text()]
            digest = hashlib.sha256(repr([*self.scheduler.config.items(), *encoders]).encode())
            hash_weights(self.unet, digest)
            self._digests["model"] = digest.hexdigest()
        return self._digests["model"]


def load_pipeline(config: ModelConfig) -> StableDiffusionXLPipeline:
    """The pipeline as diffusers loads it, in fp32, without a watermark.

    Raises:
        UserError: the files are not there, or the hub does not answer.
    """
    return parts.from_pretrained(StableDiffusionXLPipeline, config, add_watermarker=False)


def load_model(config: ModelConfig, device: torch.device | str = "cpu") -> StableDiffusionXL:
    """Load the pipeline's parts onto ``device``, frozen and in evaluation mode.

    Raises:
        UserError: see :func:`load_pipeline` and ``finetune.models.parts.frozen_parts``; or the U-Net is
            conditioned on something else.
    """
    pipeline = load_pipeline(config)
    _refuse_other_conditions(config, pipeline)
    modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    for encoder in modules[2:]:
        refuse_layer(config.clip_skip, encoder.config.num_hidden_layers - 1, "model.clip_skip")
    scheduler, schedule = parts.frozen_parts(config, pipeline, modules, device)
    return StableDiffusionXL(
        tokenizer=pipeline.tokenizer,
        tokenizer_2=pipeline.tokenizer_2,
        text_encoder=pipeline.text_encoder,
        text_encoder_2=pipeline.text_encoder_2,
        vae=pipeline.vae,
        unet=pipeline.unet,
        scheduler=scheduler,
        schedule=schedule,
        resolution=config.resolution,
        zeros_for_empty=bool(pipeline.config["force_zeros_for_empty_prompt"]),
        clip_skip=config.clip_skip,
        chunks=config.chunks,
    )


def _refuse_other_conditions(config: ModelConfig, pipeline: StableDiffusionXLPipeline) -> None:
    unet = pipeline.unet.config
    kind = unet["addition_embed_type"]
    pooled = pipeline.text_encoder_2.config.projection_dim
    numbers = _TIME_IDS * (unet["addition_time_embed_dim"] or 0) + pooled
    if kind != "text_time" or unet["projection_class_embeddings_input_dim"] != numbers:
        raise UserError(
            f"model.path={config.path} has a U-Net that is not conditioned on a pooled text and six numbers of size "
            f"and crop, as that of SDXL is: addition_embed_type={kind}, projection_class_embeddings_input_dim="
            f"{unet['projection_class_embeddings_input_dim']}. Refiners are not supported; give SDXL's base model"
        )
