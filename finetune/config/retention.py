"""The settings of the cures against forgetting: a share of the update, pictures of the base, and its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from curate.run.schema import PATH, UserError, check

AUTO = "auto"
AUTO_SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass
class ExportConfig:
    """How much of what was trained is exported and judged: W_base + scale * (W - W_base), see ``finetune.retention.scale``.

    Attributes:
        scale: 1 is as trained; a list is measured after the training, and one of it chosen; ``auto`` is the list
            ``AUTO_SCALES``.
        forgotten: the loss on pictures that the base drew may rise by so much, as a fraction, where the scale is chosen.
        pictures: so many of them are drawn for that.
        prompts: a file of what they show, one prompt a line; null takes built-in ones.
    """

    scale: Any = 1.0
    forgotten: float = 0.15
    pictures: int = 64
    prompts: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        accepted = f"{AUTO}, a number 0 < s <= 1, or a list of them such as [0.25,0.5,1]"
        check(bool(self._asked()), "export.scale", self.scale, accepted)
        check(all(_is_scale(each) for each in self._asked()), "export.scale", self.scale, accepted)
        check(0 < self.forgotten < math.inf, "export.forgotten", self.forgotten, "a fraction > 0")
        check(self.pictures >= 2, "export.pictures", self.pictures, ">= 2")
        if self.chosen:
            return
        for name in ("forgotten", "pictures", "prompts"):
            if (value := getattr(self, name)) != getattr(type(self), name, None):
                raise UserError(
                    f"export.{name}={value} has no effect with export.scale={self.scale}, which is not chosen by "
                    f"measuring; type export.scale={AUTO}, or remove it"
                )

    @property
    def chosen(self) -> bool:
        """Whether the scale is chosen by measuring several."""
        return self.scale == AUTO or not isinstance(self.scale, int | float)

    @property
    def scales(self) -> list[float]:
        """Those that are measured, the smallest first; the one that is given."""
        return sorted({float(each) for each in self._asked()})

    def _asked(self) -> list[Any]:
        if self.scale == AUTO:
            return list(AUTO_SCALES)
        if isinstance(self.scale, list | tuple):
            return list(self.scale)
        return [self.scale]


def _is_scale(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


@dataclass
class ReplayConfig:
    """A share of each batch of pictures that the base drew itself. Pairs of its own data are mixed in by ``data.runs``.

    Attributes:
        share: of the samples of a batch, rounded to whole ones; 0 replays nothing.
        pictures: so many are drawn by the base before the training, of the prompts in turn; null is one of each prompt.
        prompts: a file of what they show, one prompt a line; null takes built-in ones.
    """

    share: float = 0.0
    pictures: int | None = None
    prompts: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        check(0 <= self.share < 1, "replay.share", self.share, "a share, 0 <= s < 1")
        count = self.pictures
        check(count is None or count > 0, "replay.pictures", count, "null or > 0")
        for name in ("pictures", "prompts"):
            value = getattr(self, name)
            if value is not None and not self.share:
                raise UserError(
                    f"replay.{name}={value} has no effect with replay.share=0; type replay.share=0.25 as well, or "
                    "remove it"
                )

    def samples(self, batch_size: int) -> int:
        """Of a batch."""
        return round(self.share * batch_size)

    def refuse(self, batch_size: int) -> None:
        """Refuse a share that is none of a batch, or all of it.

        Raises:
            UserError: names a share that is possible.
        """
        if self.share and not 0 < self.samples(batch_size) < batch_size:
            raise UserError(
                f"replay.share={self.share:g} of optim.batch_size={batch_size} is {self.samples(batch_size)} samples of a "
                f"batch; it has to be some of them and not all: type replay.share={max(1, batch_size // 4) / batch_size:g}"
                if batch_size > 1
                else f"replay.share={self.share:g} needs batches of several samples; type optim.batch_size=4"
            )


@dataclass
class RegulariseConfig:
    """Terms of the loss that keep the model near the base.

    Attributes:
        weight_l2: times the squared norm of W - W_base, over all trained modules, is added to the loss of each update.
        teacher: of the replayed samples the loss is, in place of the one against the noise, so many times the squared
            difference from what the base predicts of the same noisy latents; 0 leaves the teacher out.
    """

    weight_l2: float = 0.0
    teacher: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight_l2", "teacher"):
            value = getattr(self, name)
            check(0 <= value < math.inf, f"regularise.{name}", value, ">= 0")
