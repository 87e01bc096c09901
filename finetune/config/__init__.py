"""The schema of ``conf/train.yaml``, with the range of every value.

The groups ``model`` and ``method`` have theirs in ``finetune/models`` and ``finetune/methods``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from curate.run import tracking
from curate.run.config import RunFolder, check_name
from curate.run.finished import to_mend
from curate.run.joined import FOLDER, shown
from curate.run.provenance import is_damaged
from curate.run.schema import PATH, UserError, check, entries, register
from finetune.at_once import losses_at_once
from finetune.config.objective import ObjectiveConfig
from finetune.config.optim import OptimConfig
from finetune.config.pictures import BucketsConfig, CacheConfig
from finetune.config.retention import ExportConfig, RegulariseConfig, ReplayConfig
from finetune.methods import Method
from finetune.models.config import ModelConfig

REACTIONS = ("refuse", "warn", "off")
AUTO = "auto"
MOST_CROPS = 8  # a folder of the cache for each, in each bucket

CHANGEABLE = (
    *(
        "optim.lr",
        "optim.text_encoder_lr",
        "optim.beta1",
        "optim.beta2",
        "optim.eps",
        "optim.weight_decay",
    ),
    *("optim.schedule", "optim.warmup", "optim.max_grad_norm"),
    *("optim.decay_rate", "optim.clip_threshold", "optim.d_coef"),
    *("train.samples", "train.caption_dropout"),
    *("objective.weighting", "objective.snr_gamma"),
    *("objective.timesteps", "objective.logit_mean", "objective.logit_std"),
    *("objective.noise_offset", "objective.input_perturbation"),
)
"""What ``resume.allow`` may name: the order of the samples, the weights and what is measured stay as they are."""


@dataclass
class RunConfig(RunFolder):
    """Where the run's folder is: training writes ``finetune/`` into it, and evaluation ``evaluate/``.

    ``name`` null takes the only run there is: of the curated ones to train, of the trained ones to judge.
    """

    name: str | None = field(default=None, metadata=PATH)


@dataclass
class DataConfig:
    """Which curation is trained on, so that many trainings can stand on one.

    Attributes:
        run: the name of the run below ``run.root`` whose ``curate/`` holds the shards; null is the
            training's own.
        runs: in place of it, the names of several with a weight each: how often a picture of one is seen, compared
            with one of another. A curation's share of the samples is weight × its training pictures, as kohya's
            num_repeats has it; WebDataset's mixing by probability alone is weight / pictures here. What is held
            out is not weighted.
        flip: whether a picture is mirrored at every second visit, by chance.
        crops: so many crops of each picture, one by chance at each visit: the centre, and others at random places. What
            is held out is the centre, not mirrored.
    """

    run: str | None = field(default=None, metadata=PATH)
    runs: dict[str, float] = field(default_factory=dict, metadata=entries(float))
    flip: bool = False
    crops: int = 1

    def __post_init__(self) -> None:
        if self.run is not None:
            check_name("data.run", self.run)
        check(0 < self.crops <= MOST_CROPS, "data.crops", self.crops, f"1 ... {MOST_CROPS}")
        for name, weight in self.runs.items():
            check_name("data.runs", name)
            check(0 < weight < math.inf, f"data.runs.{name}", weight, "a weight, > 0")
        if self.run is not None and self.runs:
            raise UserError(
                f"data.run={self.run} and data.runs={shown(self.runs)} are both given; type one of them"
            )


@dataclass
class TrainingConfig:
    """How long, and on what.

    Attributes:
        samples: seen in the whole training, rounded up to whole batches.
        caption_dropout: share of the samples trained with the empty caption, which classifier-free
            guidance needs (Ho & Salimans 2022).
        seed: of the order, noise, timesteps, captions and initial weights.
        shuffle_caption: captions are tags, separated by commas, which are seen in another order each time; see
            ``finetune.tags``.
        keep_tokens: so many of the first tags stay where they are, and are never left out.
        caption_tag_dropout: share of the other tags that are left out.
        tag_variants: how many variants of each caption are drawn and cached, of which each visit takes one.
        compile: whether updates run through ``torch.compile``. What is measured and drawn does not.
    """

    samples: int = 24_000
    caption_dropout: float = 0.1
    seed: int = 0
    shuffle_caption: bool = False
    keep_tokens: int = 0
    caption_tag_dropout: float = 0.0
    tag_variants: int = 8
    compile: bool = False

    def __post_init__(self) -> None:
        check(self.samples > 0, "train.samples", self.samples, "> 0")
        share = self.caption_dropout
        check(0 <= share <= 1, "train.caption_dropout", share, "a share, 0 ... 1")
        share = self.caption_tag_dropout
        check(0 <= share < 1, "train.caption_tag_dropout", share, "a share, 0 <= p < 1")
        check(self.keep_tokens >= 0, "train.keep_tokens", self.keep_tokens, ">= 0")
        check(self.tag_variants > 0, "train.tag_variants", self.tag_variants, "> 0")
        default, varied = type(self), self.shuffle_caption or self.caption_tag_dropout > 0
        for name in ("keep_tokens", "tag_variants"):
            value = getattr(self, name)
            if value != getattr(default, name) and not varied:
                raise UserError(
                    f"train.{name}={value} has no effect without train.shuffle_caption=true or "
                    "train.caption_tag_dropout=0.1; type one of them, or remove it"
                )


@dataclass
class EmaConfig:
    """Exponential moving average of the trained weights; if there is one, it is evaluated and exported."""

    decay: float | None = 0.999  # per update, reached through a ramp; null switches the average off

    def __post_init__(self) -> None:
        decay = self.decay
        check(decay is None or 0 < decay < 1, "ema.decay", decay, "null or 0 < decay < 1")


@dataclass
class HeldoutConfig:
    """The loss on pairs that are never trained on, at a frozen grid of timesteps and noise.

    With the default values of all settings it takes 9 % of what training takes, see
    ``finetune.forecast.heldout_share``. ``python -m evaluate`` measures more pictures of the kept checkpoints, and
    takes the losses of these from here.

    Attributes:
        every: samples between evaluations; every checkpoint is evaluated too.
        items: pictures of the split ``val``, and as many of ``train`` beside them; 0 measures nothing. 32 is what a
            verdict needs (``SMALLEST_JUDGED``).
        bins: noise levels. draws: noises for each of them.
        patience: the run stops early after so many evaluations in a row that show overfitting, regression
            or divergence, and at once where the loss is not a number; null never stops.
    """

    every: int = 6_000
    items: int = 32
    bins: int = 10
    draws: int = 2
    seed: int = 0
    batch_size: int | None = None
    patience: int | None = 2

    def at_once(self, resolution: int) -> int:
        """Forward passes at a time, for pictures of so many pixels a side."""
        return self.batch_size or losses_at_once(resolution)

    def __post_init__(self) -> None:
        for name in ("every", "bins", "draws"):
            check(getattr(self, name) > 0, f"heldout.{name}", getattr(self, name), "> 0")
        size = self.batch_size
        check(size is None or size > 0, "heldout.batch_size", size, "null or > 0")
        check(self.items >= 0, "heldout.items", self.items, ">= 0")
        patience = self.patience
        check(patience is None or patience > 0, "heldout.patience", patience, "null or > 0")


@dataclass
class SamplesConfig:
    """Pictures that are drawn at every evaluation, to look at while training; see ``finetune.samples``.

    Attributes:
        captions: of so many held-out pictures; 0 draws none of them.
        prompts: further ones.
        steps, guidance_scale: of the sampler, DPM-Solver++. seed: of the noise.
    """

    captions: int = 4
    prompts: list[str] = field(default_factory=list)
    steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.captions >= 0, "samples.captions", self.captions, ">= 0")
        check(0 < self.steps <= 1000, "samples.steps", self.steps, "1 ... 1000")
        scale = self.guidance_scale
        check(scale >= 0, "samples.guidance_scale", scale, ">= 0")
        check(all(self.prompts), "samples.prompts", self.prompts, "texts that are not empty")


@dataclass
class CheckpointConfig:
    """When weights and optimizer are stored. The same command resumes from the last checkpoint.

    Attributes:
        every: samples between checkpoints.
        keep: so many of the newest keep the optimizer's state and, where there is an average, the weights beside it:
            what only resuming needs. The weights that are evaluated stay, of all. null: everything stays; auto:
            as the method says, see ``methods.interface.Method``.
    """

    every: int = 6_000
    keep: Any = AUTO

    def __post_init__(self) -> None:
        check(self.every > 0, "checkpoint.every", self.every, "> 0")
        number = type(self.keep) is int and self.keep > 0
        known = number or self.keep in (None, AUTO)
        check(known, "checkpoint.keep", self.keep, f"{AUTO}, null, or a whole number > 0")


@dataclass
class DoctorConfig:
    """What is done where data or base look wrong before training.

    Attributes:
        captions: where the base sees no difference between its pictures' captions and others', see
            ``finetune.caption_check``; ``off`` does not measure it.
        base: where the base predicts worse than nothing at some noise level, see ``finetune.base_check``; ``off``
            does not look.
        leaks: where many held-out pictures have a near twin among the training pictures, see
            ``finetune.leaks``. By default a warning: exact and near copies are refused anyway, and siblings
            make a held-out loss too optimistic, not meaningless. ``off`` does not look.
    """

    captions: str = "refuse"
    base: str = "refuse"
    leaks: str = "warn"

    def __post_init__(self) -> None:
        for name in ("captions", "base", "leaks"):
            value = getattr(self, name)
            check(value in REACTIONS, f"doctor.{name}", value, ", ".join(REACTIONS))


@dataclass
class ResumeConfig:
    """What may differ when a training goes on.

    Attributes:
        allow: of ``CHANGEABLE``. Without it a start with another value is refused, since the training would be none
            that one command can make again. What was changed, and when, is in every later checkpoint's ``state.json``.
    """

    allow: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in self.allow:
            check(key in CHANGEABLE, "resume.allow", key, "some of " + ", ".join(CHANGEABLE))


@dataclass
class LogConfig:
    """How often ``metrics.jsonl`` gets a line."""

    every: int = 500  # samples

    def __post_init__(self) -> None:
        check(self.every > 0, "log.every", self.every, "> 0")


@dataclass
class TrainConfig:
    """All of ``finetune/train.py``.

    Attributes:
        tracker: where the curves go, see ``curate.run.tracking``.
    """

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    buckets: BucketsConfig = field(default_factory=BucketsConfig)
    model: ModelConfig = MISSING
    method: Method = MISSING
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    regularise: RegulariseConfig = field(default_factory=RegulariseConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    heldout: HeldoutConfig = field(default_factory=HeldoutConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    doctor: DoctorConfig = field(default_factory=DoctorConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    tracker: Any = tracking.AUTO

    def __post_init__(self) -> None:
        tracking.check_names(self.tracker)
        self.replay.refuse(self.optim.batch_size)
        if self.export.chosen and not self.heldout.items:
            raise UserError(
                f"export.scale={self.export.scale} is chosen by the held-out loss, and heldout.items=0 measures none; type "
                "export.scale=0.5, or another number, or heldout.items=128"
            )
        if self.method != MISSING:
            self._refuse_contradictions()
            self._refuse_cures()

    def _refuse_contradictions(self) -> None:
        """Refuse settings of text encoders that do not go together."""
        method, rate = self.method, self.optim.text_encoder_lr
        if method.text_encoder and type(method).attach_text is Method.attach_text:
            raise UserError(
                f"method={method.name} trains no text encoder; remove method.text_encoder=true"
            )
        if method.text_encoder and self.cache.captions == "hidden":
            raise UserError(
                "cache.captions=hidden keeps what the text encoder made of captions before training, and "
                "method.text_encoder=true trains it; remove cache.captions, or type cache.captions=tokens"
            )
        if rate not in (None, self.optim.lr) and self.optim.name == "prodigy":
            raise UserError(
                f"optim.text_encoder_lr={rate:g} is another rate than optim.lr={self.optim.lr:g}, and Prodigy finds one "
                "for all weights; remove it"
            )
        if rate is not None and not method.text_encoder:
            raise UserError(
                f"optim.text_encoder_lr={rate:g} has no effect without method.text_encoder=true; type that as well, "
                "or remove it"
            )

    def _refuse_cures(self) -> None:
        """Refuse cures against forgetting that have no effect, or do not work with the other settings."""
        teacher, share = self.regularise.teacher, self.replay.share
        if teacher and not share:
            raise UserError(
                f"regularise.teacher={teacher:g} has no effect with replay.share=0: the base is the teacher on replayed "
                "samples; type replay.share=0.25 as well, or remove it"
            )
        typed = [
            *([f"export.scale={self.export.scale}"] if self.export.scales != [1.0] else []),
            *([f"replay.share={share:g}"] if share else []),
            *([f"regularise.weight_l2={v:g}"] if (v := self.regularise.weight_l2) else []),
        ]
        if not typed:
            return
        if not self.method.retains or self.method.text_encoder:
            other = "text_encoder=true" if self.method.retains else f"method={self.method.name}"
            raise UserError(
                f"{typed[0]} works where the U-Net alone is trained, not with {other}; remove one of the two"
            )
        unlike = {
            "buckets.enabled=true": self.buckets.enabled,
            "cache.captions=tokens": self.captions == "tokens",
            "objective.mask=true": self.objective.mask,
        }
        for setting in (name for name, given in unlike.items() if given and share):
            raise UserError(
                f"replay.share={share:g} does not work with {setting}: the base draws plain squares for prompts; remove "
                "one of the two"
            )

    @property
    def captions(self) -> str:
        """The form in which captions are cached, ``hidden`` or ``tokens``."""
        if self.cache.captions != AUTO:
            return self.cache.captions
        return "tokens" if self.method.text_encoder else "hidden"

    @property
    def folder(self) -> Path:
        """``<run.root>/<run.name>/finetune``."""
        return self.run.folder / "finetune"

    @property
    def curate_dir(self) -> Path:
        """``<run.root>/<data.run>/curate``, which holds the shards; of several the folder that joins them."""
        if self.data.runs:
            return self.run.folder / FOLDER
        return self.run.folder.with_name(self.data.run or self.run.folder.name) / "curate"

    @property
    def curations(self) -> list[Path]:
        """The folders ``curate`` of all curations that are trained on."""
        names = self.data.runs or {self.data.run or self.run.folder.name: 1.0}
        return [self.run.folder.with_name(name) / "curate" for name in sorted(names)]

    @property
    def kept_states(self) -> int | None:
        """How many checkpoints keep their optimizer; None: all."""
        keep = self.checkpoint.keep
        return self.method.kept_states if keep == AUTO else keep

    @property
    def steps(self) -> int:
        """Optimizer updates in all."""
        return -(-self.train.samples // self.optim.batch_size)


def refuse_damaged(run_dir: Path) -> None:
    """Refuse a run whose training's ``config.yaml`` is not what training wrote: it says which data to judge by.

    Raises:
        UserError: names the file and what to do.
    """
    path = run_dir / "finetune" / "config.yaml"
    if path.is_file() and is_damaged(path):
        raise UserError(
            f"{path} is damaged, or was edited; "
            + to_mend(run_dir, "train with the same command as before, which writes it again")
        )


register(TrainConfig, "train")
