"""What has to be set in other programs, so that they draw with a model as it was trained; with default settings nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FILE = "README.md"  # in an export, where there is something to set


@dataclass(frozen=True, slots=True)
class AsTrained:
    """The settings of a training that no file of weights holds.

    Attributes:
        clip_skip: see ``finetune.models.config.ModelConfig``.
    """

    clip_skip: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> AsTrained:
        """From a training's configuration, by its groups; what earlier versions did not know is at its default."""
        model = config.get("model") or {}
        return cls(clip_skip=model.get("clip_skip", 1))

    @property
    def notes(self) -> list[str]:
        """What to set, a sentence or two for each setting."""
        found = []
        if (skip := self.clip_skip) != 1:
            found.append(
                f"It was trained with clip_skip={skip}: layer {skip} of the text encoder, counted from the one that the "
                f"pipeline takes. In AUTOMATIC1111 and Forge set Clip skip to {skip}; in ComfyUI put CLIP Set Last Layer "
                f"with -{skip} behind the model, of SDXL with -{skip + 1}. In diffusers, which counts the layers that are "
                f"left out, type pipe(..., clip_skip={skip - 1}) of SDXL; give a pipeline of Stable Diffusion 1 or 2 the "
                f'text_encoder=CLIPTextModel.from_pretrained(BASE, subfolder="text_encoder", num_hidden_layers=N), where '
                f"N is {skip - 1} less than the base's, as its clip_skip leaves the negative prompt out."
            )
        return found

    @property
    def readme(self) -> str:
        """Of an export; "" where there is nothing to set."""
        notes = "".join(f"- {note}\n" for note in self.notes)
        return notes and f"# To draw as it was trained\n\n{notes}"
