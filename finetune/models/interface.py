"""What training, evaluation and exports need of a model, whatever pipeline it comes from.

A new kind of pipeline is a module beside this one, with ``load_model`` and ``load_pipeline`` as in ``sdxl.py``, and
an entry of its parts in ``finetune.models.MODELS``. Stable Diffusion 3 would need these changes elsewhere, too:

- Its network is a transformer in place of ``unet``. ``predict`` gives it ``hidden``, ``pooled`` and the timestep under
  its own names; methods, ``SwappedUnet`` and the comparison of an export call the network a U-Net and read its settings.
- Its noise is x_t = (1 - s) x_0 + s eps, with the target eps - x_0. ``NoiseSchedule``'s tables hold 1 - s and s as well
  as any others, and ``target`` gets another case; but they are made from ``alphas_cumprod``, which its scheduler lacks,
  and pictures are drawn by a solver of its own.
- ``encode_images`` takes the VAE's shift off before it scales; latents have 16 channels.
- A third text encoder, T5: large, not always wanted, and its hidden states have to be within fp16 to be cached;
  ``finetune.methods`` names the modules of CLIP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from finetune.conditioning import Conditioning
from finetune.crop import Crop
from finetune.objective import NoiseSchedule


class LatentDiffusion(Protocol):
    """The parts of a pipeline, all fp32; the U-Net is trained, and with ``method.text_encoder`` the text encoders.

    What computes with an encoder puts it on :attr:`device` first, where :meth:`park` took it away.

    Attributes:
        captions: ``hidden`` or ``tokens``, the form that :meth:`encode_captions` gives captions, and the cache holds.
            Hidden states are for frozen text encoders alone: a changed one would make others.
    """

    captions: str

    @property
    def unet(self) -> UNet2DConditionModel:
        """The network that is trained."""
        ...

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """By the names that the pipeline has for them, ``text_encoder`` first."""
        ...

    def unread_text_modules(self) -> dict[str, list[str]]:
        """Modules of text encoders, by encoder, that the U-Net is given nothing of, so that they get no gradient.

        Names are as of transformers' flat ``CLIPTextModel``, see ``finetune.methods.interface.text_name``.
        """
        ...

    @property
    def scheduler(self) -> Any:
        """As diffusers loaded it; its configuration goes into exports and samplers."""
        ...

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels, on the model's device."""
        ...

    @property
    def resolution(self) -> int:
        """Side of the square pictures in pixels."""
        ...

    @property
    def clip_skip(self) -> int:
        """Which layer of the text encoder captions are read from, see ``ModelConfig``; 1 is the pipeline's own."""
        ...

    @property
    def chunks(self) -> int:
        """In which captions are read, each of the text encoder's length; 1 cuts what is longer, as pipelines do."""
        ...

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether ``objective.zero_terminal_snr`` asked for a last step without signal."""
        ...

    @property
    def pixels_per_latent(self) -> int:
        """Pixels of a side for each value of a latent; widths and heights are multiples of it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        ...

    @property
    def encoders(self) -> Sequence[nn.Module]:
        """The VAE and the text encoders."""
        ...

    def park(self) -> None:
        """Move the encoders to the CPU until they are needed again, but for those that are trained."""
        ...

    def move(self, device: torch.device) -> None:
        """Put all parts onto another device."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] to scaled latents [B, C, h, w], fp32, without randomness."""
        ...

    def posterior_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of what the VAE says, scaled as :meth:`encode_images`, which gives the mean."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`encode_images`, as far as the VAE goes: [B, C, h, w] to [B, 3, H, W], fp32."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> Conditioning:
        """All entries that depend on the caption: as the pipeline computes them, fp32, or what :meth:`tokens` gives.

        Which of them, :attr:`captions` says; :meth:`predict` takes both. Hidden states are of :attr:`clip_skip`.
        Both are of :attr:`chunks`.
        """
        ...

    def tokens(self, captions: Sequence[str]) -> Conditioning:
        """All that :meth:`encode_tokens` needs of captions: token ids [B, L] int64 and marks, on the CPU."""
        ...

    def encode_tokens(self, conditioning: Conditioning) -> Conditioning:
        """What the text encoders make of tokens, with their present weights.

        With gradients, if the caller has them switched on and the encoders are trained; else in fp32.

        Args:
            conditioning: with the entries of :meth:`tokens`.

        Returns:
            Hidden states and the like in their place, on the model's device; entries of the picture are kept.
        """
        ...

    def picture_entries(self, crops: Sequence[Crop]) -> dict[str, Tensor]:
        """All entries of the conditioning that depend on the picture's size and crop; often none.

        Args:
            crops: [B], of the pictures. Where an entry is missing, :meth:`predict` takes that of
                ``Crop.whole(resolution)``, with which new pictures are drawn.

        Returns:
            By name [B, ...], fp32, on the CPU. Which names there are does not depend on ``crops``; what they
            depend on is in :meth:`image_fingerprint`.
        """
        ...

    def cut_off(self, caption: str) -> str:
        """The end of a caption that the text encoder does not read, as it is too long; "" if it reads all."""
        ...

    def prompt_arguments(
        self, prompts: Sequence[str], negative: Sequence[str], clip_skip: int | None = None
    ) -> dict[str, Any]:
        """What a pipeline is called with for these prompts.

        Args:
            prompts: [B]. negative: [B], what the guidance leads away from.
            clip_skip: which layer of the text encoder counts, from the one that the pipeline takes, which is 1; None
                is the one that captions are read from.

        Raises:
            UserError: the text encoder has not that many layers.
        """
        ...

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """What ``network``, the U-Net, a ``Denoiser`` or a wrapper of one, predicts.

        This is where the names in ``conditioning`` become the network's keyword arguments.

        Args:
            network: called with gradients, if the caller has them switched on.
            noisy: x_t [B, C, h, w].
            timesteps: [B] int64.
            conditioning: of B samples; of token ids, the text encoders make hidden states first.

        Returns:
            [B, C, h, w], in the network's precision.
        """
        ...

    def pipeline(self, unet: nn.Module | None = None) -> DiffusionPipeline:
        """A pipeline to sample from, sharing these weights; with another U-Net, if one is given."""
        ...

    def picture_pipeline(self, unet: nn.Module | None = None) -> DiffusionPipeline:
        """The same as :meth:`pipeline`, to sample from a picture instead of from noise."""
        ...

    def image_fingerprint(self) -> str:
        """Hex digest of all that ``encode_images`` depends on, the pictures aside."""
        ...

    def caption_fingerprint(self) -> str:
        """Hex digest of all that ``encode_captions`` depends on, the captions aside."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of the whole model.

        Weights are hashed at the first call, which has to come before adapters are attached, and the
        digest is remembered.
        """
        ...
