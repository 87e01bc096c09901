"""What has to be set in other programs, so that they draw with a model as it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune.canny import HIGH, LOW
from finetune.condition_kinds import CANNY
from finetune.models.config import BETAS, CHUNK

FILE = "README.md"  # in an export, where there is something to set


@dataclass(frozen=True, slots=True)
class AsTrained:
    """The settings of a training that no file of weights holds.

    Attributes:
        clip_skip, caption_tokens: see ``finetune.models.config.ModelConfig``. betas: its ``beta_*`` that are set.
        zero_terminal_snr: see ``finetune.config.ObjectiveConfig``.
        follows: of a ControlNet, ``method.condition``; None of any other.
        has_scheduler: whether the export is a whole pipeline, whose scheduler holds the noise levels.
    """

    clip_skip: int = 1
    caption_tokens: int = CHUNK
    betas: Mapping[str, Any] = field(default_factory=dict)
    zero_terminal_snr: bool = False
    follows: str | None = None
    has_scheduler: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AsTrained:
        """From a training's configuration, by its groups; what earlier versions did not know is at its default."""
        model, method = config.get("model") or {}, config.get("method") or {}
        return cls(
            clip_skip=model.get("clip_skip", 1),
            caption_tokens=model.get("caption_tokens", CHUNK),
            betas={name: value for name in BETAS if (value := model.get(name)) is not None},
            zero_terminal_snr=bool((config.get("objective") or {}).get("zero_terminal_snr")),
            follows=method.get("condition", CANNY) if method.get("name") == "controlnet" else None,
            has_scheduler=method.get("name") == "full",
        )

    @property
    def notes(self) -> list[str]:
        """What to set, a sentence or two for each setting."""
        found = self._condition()
        if (skip := self.clip_skip) != 1:
            found.append(
                f"It was trained with clip_skip={skip}: layer {skip} of the text encoder, counted from the one that the "
                f"pipeline takes. Of Stable Diffusion 1 set Clip skip to {skip} in AUTOMATIC1111 and Forge; in ComfyUI put "
                f"CLIP Set Last Layer with -{skip} behind the model. The pipelines of Stable Diffusion 2 and SDXL take the "
                "layer before the last, and these programs count from the last: in ComfyUI that is "
                f"-{skip + 1}, in Forge for SDXL Clip skip {skip + 1}. AUTOMATIC1111 cannot do it: of Stable Diffusion 2 it "
                "always reads the pipeline's own layer, of SDXL another one from the first of the two text encoders at "
                "most. In diffusers, which counts the layers that are "
                f"left out, type pipe(..., clip_skip={skip - 1}) of SDXL; give a pipeline of Stable Diffusion 1 or 2 the "
                f'text_encoder=CLIPTextModel.from_pretrained(BASE, subfolder="text_encoder", num_hidden_layers=N), where '
                f"N is {skip - 1} less than the base's, as its clip_skip leaves the negative prompt out."
            )
        if (chunks := self.caption_tokens // CHUNK) > 1:
            found.append(
                f"It was trained on captions of up to {self.caption_tokens} tokens, read in {chunks} chunks of {CHUNK}. "
                "ComfyUI, AUTOMATIC1111 and Forge read long prompts so by themselves. diffusers cuts a prompt at "
                f"{CHUNK} tokens: encode each chunk of it alone, with its own marks of start and end, and give the pipeline "
                "the hidden states of all, one behind the other, as prompt_embeds, and as many for the negative prompt."
            )
        return [*found, *self._noise()]

    def _condition(self) -> list[str]:
        if self.follows is None:
            return []
        if self.follows == CANNY:
            return [
                f"It follows edges, white on black, as OpenCV's Canny finds them with the thresholds {LOW} and {HIGH} in "
                "an 8-bit RGB picture of the size to draw: in Python, with pip install opencv-python-headless, "
                f'condition = Image.fromarray(cv2.Canny(np.array(picture.convert("RGB")), {LOW}, {HIGH})).convert("RGB"). '
                "In diffusers type pipe(prompt, image=condition); in ComfyUI give Apply ControlNet such a picture."
            ]
        return [
            "It follows RGB pictures of the kind that it was trained on, NAME.control.png of the data, of the size to draw. "
            "In diffusers type pipe(prompt, image=condition); in ComfyUI give Apply ControlNet such a picture."
        ]

    def _noise(self) -> list[str]:
        found = []
        if self.betas:
            said = ", ".join(f"{name}={value!r}" for name, value in self.betas.items())
            here = (
                "The scheduler in this folder says so"
                if self.has_scheduler
                else "In diffusers type pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, "
                f"trained_betas=None, clip_sample=False, {said})"
            )
            found.append(
                f"It was trained at the noise levels of {said}. {here}; ComfyUI, AUTOMATIC1111 and Forge know those of "
                "Stable Diffusion alone."
            )
        if self.zero_terminal_snr:
            here = (
                "diffusers takes that from the scheduler in this folder"
                if self.has_scheduler
                else "In diffusers type pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, "
                'rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)'
            )
            found.append(
                f"It was trained with zero terminal SNR. {here}; in ComfyUI put ModelSamplingDiscrete with zsnr behind the "
                "model, in AUTOMATIC1111 and Forge set Noise schedule for sampling to Zero Terminal SNR."
            )
        return found

    @property
    def readme(self) -> str:
        """Of an export; "" where there is nothing to set."""
        notes = "".join(f"- {note}\n" for note in self.notes)
        return notes and f"# To draw as it was trained\n\n{notes}"
