"""Before training: does the base see a difference between the pictures' captions and captions of others?

Wrong captions cannot be seen in the loss: a run on captions of which 99 % were wrong lowered the held-out
loss by 26 %. They can be seen in the caption gain of the base, before anything is trained (see
``finetune.caption_gain``). Training pictures are measured, since it is their captions that are learnt; the
base has never seen them, so they are as good as held-out ones.

The base sees no difference where the interval of the fit contains 0, which is shuffled captions, and ends
below ``LARGEST_UNSEEN``. Measured with the built-in base on 128 of the demo's pictures, whose style is new to
it, by the share of captions that were shuffled:

    none     0.53 [0.46, 0.61]
    half     0.24 [0.13, 0.35], 0.25 [0.14, 0.35], 0.27 [0.17, 0.38]
    99 %     -0.02 [-0.12, 0.08], 0.00 [-0.09, 0.10], -0.01 [-0.12, 0.10]

So a fit in between says nothing that is sure: some captions are wrong, or the base does not know such
pictures well. Only the first and the last row differ surely, whatever the base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from curate.decide.config import SMALLEST_JUDGED
from curate.run.files import read_json, write_certified
from curate.run.intervals import changes
from curate.run.joined import curations_of, named_runs
from curate.run.progress import Bar
from curate.run.schema import UserError
from finetune.caption_gain import Exchanged, caption_effects, fit, gains
from finetune.heldout import HeldoutGrid, HeldoutItems, relative
from finetune.intervals import Estimate, estimate
from finetune.models.interface import LatentDiffusion

FILE = "captions.json"
PICTURES = 128
GRID = HeldoutGrid(bins=4, draws=1)
LARGEST_UNSEEN = 0.2  # of the fit: the table above
SMALLEST_EFFECT = 0.001  # of the base's loss: a base that reacts less to captions ignores them
_SUSPECTS = 3  # keys in the message

Finding = Literal["seen", "weak", "unclear", "unseen"]


@dataclass(frozen=True, slots=True)
class CaptionCheck:
    """What was measured.

    Attributes:
        gain: loss with another's caption minus loss with the own one, in units of the base's loss.
        fit: gain divided by effect; 0 is shuffled captions, 1 right captions that the base knows.
        effect: what the gain would be at a fit of 1.
        left_out: pictures for which there was no other caption.
        suspects: keys of the pictures with the smallest gain.
    """

    gain: Estimate
    fit: Estimate
    effect: float
    left_out: int
    suspects: tuple[str, ...]

    @property
    def finding(self) -> Finding:
        """``unseen`` refuses; ``unclear`` and ``weak`` warn; few groups never show that nothing is seen."""
        if self.effect < SMALLEST_EFFECT:
            return "unseen" if self.fit.groups >= SMALLEST_JUDGED else "unclear"
        if not self.fit.low > 0:
            narrow = self.fit.high < LARGEST_UNSEEN and self.fit.groups >= SMALLEST_JUDGED
            return "unseen" if narrow else "unclear"
        return "weak" if self.fit.high < LARGEST_UNSEEN else "seen"

    def save(self, path: Path) -> None:
        """Write ``captions.json``, atomically; null stands for what is not a finite number."""
        content = {name: _finite(value) for name, value in asdict(self).items()}
        write_certified(path, {**content, "finding": self.finding})

    @classmethod
    def load(cls, path: Path) -> CaptionCheck | None:
        """What was stored; None where nothing was, or the file is damaged."""
        content = read_json(path, sealed=True)
        if content is None:
            return None
        return cls(
            Estimate(**_numbers(content["gain"])),
            Estimate(**_numbers(content["fit"])),
            _numbers(content)["effect"],
            content["left_out"],
            tuple(content["suspects"]),
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(content: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in content.items()}


def measure(
    model: LatentDiffusion,
    unet: nn.Module,
    items: HeldoutItems,
    captions: Sequence[str],
    batch_size: int,
) -> CaptionCheck | None:
    """Compare the captions of some pictures; None where fewer than two read differently.

    Args:
        model: the base. unet: its own, before training.
        items: of the split that is trained on. captions: theirs, in the same order.
        batch_size: forward passes at a time.
    """
    exchanged = Exchanged.of(items, captions)
    if not len(exchanged):
        return None
    total = 2 * len(exchanged) * GRID.bins * GRID.draws
    with Bar(total=total, unit="loss", desc="captions", leave=False) as bar:
        own, other, effect = caption_effects(model, unet, exchanged, GRID, batch_size, bar.update)
    groups = exchanged.own.groups
    gain = gains(other, own, own, groups)
    effects = relative(effect, own, groups)
    least = np.argsort(gain, kind="stable")[:_SUSPECTS]
    return CaptionCheck(
        gain=estimate(gain, groups),
        fit=fit(gain, effects, groups),
        effect=estimate(effects, groups).value,
        left_out=len(items) - len(exchanged),
        suspects=tuple(exchanged.own.keys[place] for place in least),
    )


def judge(found: CaptionCheck | None, reaction: str, curate_dir: Path) -> str:
    """The line to print.

    Args:
        found: what :func:`measure` returned.
        reaction: ``doctor.captions``.
        curate_dir: of the data, for the commands to type.

    Raises:
        UserError: the base sees no difference, and ``reaction`` is ``refuse``.
    """
    if found is None:
        return "captions not compared: all of them read alike, or belong to one duplicate group"
    if found.finding == "seen":
        return f"captions {_measured(found)}"
    if found.finding == "unclear":
        few = found.fit.groups < SMALLEST_JUDGED
        why = f"; {SMALLEST_JUDGED} groups are needed" if few else ""
        return (
            f"warning: whether the base sees a difference between the pictures' captions and others' is not "
            f"known: {_measured(found)}{why}"
        )
    if found.finding == "weak":
        return (
            f"warning: the captions hardly fit, as the base reads them: {_measured(found)}. "
            f"{_causes(found, curate_dir)}"
        )
    said = (
        "the base sees no difference between the pictures' captions and captions of other pictures: "
        f"{_measured(found)}. {_causes(found, curate_dir)}"
    )
    if reaction == "refuse":
        raise UserError(f"{said}. To train all the same, type doctor.captions=warn")
    return f"warning: {said}"


def _measured(found: CaptionCheck) -> str:
    gain, ratio = found.gain, found.fit
    value, low, high = changes(gain.value, gain.low, gain.high)
    text = (
        f"another picture's caption instead of the own one changes the base's loss by {value} % [{low}, {high}] "
        f"on {gain.n} training pictures ({gain.groups} groups)"
    )
    if found.effect < SMALLEST_EFFECT:
        return f"{text}, and its predictions hardly depend on captions at all"
    return (
        f"{text}; fit {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], where 0 is captions shuffled at random "
        "and 1 the most that right captions reach"
    )


def _causes(found: CaptionCheck, curate_dir: Path) -> str:
    keys = " ".join(found.suspects)
    run, which = named_runs(curations_of(curate_dir))
    return (
        "Either most captions do not belong to their pictures, or this base does not know such captions or "
        "such pictures (another language, another kind of picture). Look at some pairs: python -m curate.explain "
        f"{run} {keys}{which}. If captions are wrong, correct them at their source and curate again; a "
        "stricter cut (filters.clip_similarity.false_keep_rate=0.01) helps only where the curation's report says that "
        "its CLIP can judge these pairs. If they are right, take another base (model.path=...)"
    )
