"""The typed schema of ``conf/train.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from curate.run.config import RunConfig as CuratedRun
from curate.run.schema import PATH, UserError, check, register

SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("no", "fp16", "bf16")
PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass
class RunConfig(CuratedRun):
    """Where the run's folder is; ``curate/`` in it holds the shards, ``finetune/`` will hold the rest."""

    name: str = field(default="openmoji", metadata=PATH)


@dataclass
class ModelConfig:
    """The latent diffusion pipeline to start from.

    Attributes:
        path: a folder in diffusers' layout, or a repository of the Hugging Face hub. A relative folder
            is looked up in the working directory, then beside the packages.
        revision: of the hub repository; null takes its default branch.
        variant: of the weight files, such as ``fp16``.
        resolution: side in pixels of the squares that the pictures are resized and cropped to.
        prediction_type: what the U-Net predicts; null takes what its scheduler says.
    """

    path: str = field(default=MISSING, metadata=PATH)
    revision: str | None = None
    variant: str | None = None
    resolution: int = MISSING
    prediction_type: str | None = None

    def __post_init__(self) -> None:
        size, kind = self.resolution, self.prediction_type
        check(size > 0 and size % 8 == 0, "model.resolution", size, "a multiple of 8, > 0")
        check(
            kind is None or kind in PREDICTION_TYPES,
            "model.prediction_type",
            kind,
            f"null, {', '.join(PREDICTION_TYPES)}",
        )

    def location(self) -> str:
        """Where to load from: the folder, if ``path`` names one, else the hub repository's name.

        Raises:
            UserError: ``path`` is neither a folder nor of the form ``owner/name``.
        """
        beside_packages = Path(__file__).resolve().parents[1] / self.path
        for folder in (Path(self.path).expanduser(), beside_packages):
            if (folder / "model_index.json").is_file():
                return str(folder)
            if folder.is_dir():
                raise UserError(
                    f"model.path={self.path} is a folder without model_index.json; it must be a "
                    "pipeline in diffusers' layout. Type model=starter for the built-in one"
                )
        if self.path.count("/") != 1 or self.path.startswith((".", "/", "~")):
            raise UserError(
                f"model.path={self.path} does not exist; give a folder in diffusers' layout or a "
                "hub repository such as stable-diffusion-v1-5/stable-diffusion-v1-5"
            )
        return self.path


@dataclass
class MethodConfig:
    """Which weights are trained; each method adds its own fields."""

    name: str = MISSING


@dataclass
class FullConfig(MethodConfig):
    """Every weight of the U-Net."""

    name: str = "full"


@dataclass
class LoraConfig(MethodConfig):
    """Low-rank updates beside frozen weights (Hu et al. 2021): W + alpha / rank * B A.

    Attributes:
        rank: of the update.
        alpha: its scale; ``alpha == rank`` is a scale of one.
        targets: suffixes of the U-Net's module names that get an update.
    """

    name: str = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])

    def __post_init__(self) -> None:
        check(self.rank > 0, "method.rank", self.rank, "> 0")
        check(self.alpha > 0, "method.alpha", self.alpha, "> 0")
        check(len(self.targets) > 0, "method.targets", self.targets, "at least one module name")


@dataclass
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2017), its learning rate over time, and how a batch is cut up.

    Attributes:
        batch_size: samples of one update, over all processes and accumulated micro-batches.
        gradient_accumulation: micro-batches into which each process cuts its share of a batch.
        warmup: samples over which the learning rate rises from zero.
        mixed_precision: of the forward pass; null takes what ``accelerate launch`` says. Weights that
            are trained, the noise and its schedule stay fp32.
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup: int = 0
    batch_size: int = 16
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    max_grad_norm: float = 1.0
    mixed_precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "batch_size", "gradient_accumulation", "max_grad_norm"):
            check(getattr(self, name) > 0, f"optim.{name}", getattr(self, name), "> 0")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "0 <= b < 1")
        for name in ("weight_decay", "warmup"):
            check(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), ">= 0")
        check(self.schedule in SCHEDULES, "optim.schedule", self.schedule, ", ".join(SCHEDULES))
        check(
            self.batch_size % self.gradient_accumulation == 0,
            "optim.gradient_accumulation",
            self.gradient_accumulation,
            f"a divisor of optim.batch_size={self.batch_size}",
        )
        precision = self.mixed_precision
        check(
            precision is None or precision in PRECISIONS,
            "optim.mixed_precision",
            precision,
            f"null, {', '.join(PRECISIONS)}",
        )


@dataclass
class TrainingConfig:
    """How long, and on what.

    Attributes:
        samples: to be seen in all, rounded up to whole batches.
        caption_dropout: share of the samples trained with the empty caption, which classifier-free
            guidance needs (Ho & Salimans 2022).
        seed: of the order, noise, timesteps, captions and initial LoRA weights.
    """

    samples: int = 20_000
    caption_dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.samples > 0, "train.samples", self.samples, "> 0")
        share = self.caption_dropout
        check(0 <= share <= 1, "train.caption_dropout", share, "a share, 0 ... 1")


@dataclass
class EmaConfig:
    """Exponential moving average of the trained weights; what is evaluated and exported, when on."""

    decay: float | None = 0.999  # per update, reached through a ramp; null switches the average off

    def __post_init__(self) -> None:
        decay = self.decay
        check(decay is None or 0 < decay < 1, "ema.decay", decay, "null or 0 < decay < 1")


@dataclass
class HeldoutConfig:
    """The loss on pairs that are never trained on, at a frozen grid of timesteps and noise.

    Attributes:
        every: samples between evaluations; there is one at every checkpoint too.
        items: pictures of the split ``val``, and as many of ``train`` for the probe; 0 switches off.
        bins: noise levels. draws: noises for each of them.
        patience: evaluations in a row that have to show overfitting or divergence for the run to stop
            early; null never stops.
    """

    every: int = 2_000
    items: int = 128
    bins: int = 10
    draws: int = 2
    seed: int = 0
    batch_size: int = 64
    patience: int | None = 2

    def __post_init__(self) -> None:
        for name in ("every", "bins", "draws", "batch_size"):
            check(getattr(self, name) > 0, f"heldout.{name}", getattr(self, name), "> 0")
        check(self.items >= 0, "heldout.items", self.items, ">= 0")
        patience = self.patience
        check(patience is None or patience > 0, "heldout.patience", patience, "null or > 0")


@dataclass
class CheckpointConfig:
    """When weights and optimizer are stored; the last one is where the same command resumes."""

    every: int = 2_000  # samples
    keep: int | None = None  # the newest ones, and always the best; null keeps all

    def __post_init__(self) -> None:
        check(self.every > 0, "checkpoint.every", self.every, "> 0")
        check(self.keep is None or self.keep > 0, "checkpoint.keep", self.keep, "null or > 0")


@dataclass
class LogConfig:
    """How often ``metrics.jsonl`` gets a line."""

    every: int = 500  # samples

    def __post_init__(self) -> None:
        check(self.every > 0, "log.every", self.every, "> 0")


@dataclass
class TrainConfig:
    """All of ``finetune/train.py``."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = MISSING
    method: MethodConfig = MISSING
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    heldout: HeldoutConfig = field(default_factory=HeldoutConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def folder(self) -> Path:
        """``<run.root>/<run.name>/finetune``."""
        return self.run.folder / "finetune"

    @property
    def steps(self) -> int:
        """Optimizer updates in all."""
        return -(-self.train.samples // self.optim.batch_size)


METHODS: dict[str, type[MethodConfig]] = {"full": FullConfig, "lora": LoraConfig}

register(TrainConfig, "train")
register(ModelConfig, "model", "model")
for _name, _schema in METHODS.items():
    register(_schema, _name, "method")
register(OptimConfig, "optim", "optim")
