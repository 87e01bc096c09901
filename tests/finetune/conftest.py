"""A pipeline of random weights in diffusers' layout, and small curated runs to fine-tune it on."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from curate.measures import decode as images
from curate.pack.writer import write_shard
from curate.run.companions import sha256_column
from curate.run.manifest import Manifest, write_manifest
from finetune import metrics
from finetune.config import (
    CheckpointConfig,
    DoctorConfig,
    EmaConfig,
    HeldoutConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    SamplesConfig,
    TrainConfig,
    TrainingConfig,
)
from finetune.config.pictures import BucketsConfig
from finetune.methods import METHODS
from finetune.models.config import ModelConfig
from tests.curate.pack.oracle import plan

COLOURS = ("red", "green", "blue", "white", "black")
SHAPES = ("square", "bar", "dot")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def save_pipeline(folder: Path, prediction_type: str = "v_prediction", **unet_settings) -> Path:
    """Write a Stable Diffusion pipeline of a few thousand weights: 16 px pictures, 4×4 latents.

    ``unet_settings`` come over the U-Net's own.
    """
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=8
    )
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        **{"attention_head_dim": 2, **unet_settings},
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8),
        norm_num_groups=2,
        latent_channels=4,
        sample_size=16,
        scaling_factor=1.5,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline_dir(tmp_path_factory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def deep_dir(tmp_path_factory, pipeline_dir) -> Path:
    """The same pipeline with a text encoder of three layers."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    found = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    deeper = found.text_encoder.config.to_dict() | {"num_hidden_layers": 3}
    torch.manual_seed(1)
    found.text_encoder = CLIPTextModel(CLIPTextConfig(**deeper))
    found.save_pretrained(folder := tmp_path_factory.mktemp("models") / "deep")
    return folder


def with_text_model(pipe):
    """``pipe`` with the part of its text encoder that diffusers 0.42 asks for and transformers 5 does not have any more."""
    vars(pipe.text_encoder).setdefault("text_model", pipe.text_encoder)
    return pipe


def picture(seed: int, size: int = 16) -> Image.Image:
    """Coloured noise around a mean of its own, so that no two are alike."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(rng.uniform(40, 215, 3), 30, (size, size, 3)).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def curate(
    folder: Path,
    counts: dict[str, int],
    max_samples: int = 8,
    prefix: str = "",
    seed: int = 0,
    captions: Callable[[int], list[str]] | None = None,
    beside: Callable[[int], dict[str, bytes]] = lambda seed: {},
) -> None:
    """Write shards, sidecars and manifest of random pictures, in the real format.

    ``prefix`` begins the keys, and ``seed`` is that of the first picture: both tell curations apart. ``captions`` gives
    a picture's own by its seed, ``beside`` the pictures beside it, by kind.
    """
    rows, pictures, companions = [], {}, {}
    kinds = {kind for number in range(sum(counts.values())) for kind in beside(seed + number)}
    for split, count in counts.items():
        for number in range(count):
            key = f"{prefix}{split}-{number:03d}"
            image = picture(seed)
            pictures[key] = images.encode(image, "png", 95)
            companions[key] = beside(seed)
            colour, shape = COLOURS[seed % 5], SHAPES[seed % 3]
            rows.append(
                {
                    "key": key,
                    "split": split,
                    "captions": captions(seed)
                    if captions
                    else [f"{colour} {shape}", f"a {shape}"][: 1 + seed % 2],
                    "sha256": f"{seed:064x}",
                    "duplicate_group": f"group-{seed}",
                    "width": image.width,
                    "height": image.height,
                    "source": "random",
                    **{
                        sha256_column(kind): data and hashlib.sha256(data).hexdigest()
                        for kind in sorted(kinds)
                        for data in [companions[key].get(kind)]
                    },
                }
            )
            seed += 1
    by_key = {row["key"]: row for row in rows}
    sides = {split: [row["key"] for row in rows if row["split"] == split] for split in counts}
    infos = [
        write_shard(
            folder,
            plan,
            [by_key[key] for key in plan.keys],
            "png",
            "png",
            [pictures[key] for key in plan.keys],
            companions_of=lambda row: companions[row["key"]],
        )
        for plan in plan(sides, max_samples)
    ]
    totals = {"pairs_in": len(rows), "kept": len(rows), "dropped": 0, "unreadable": 0}
    write_manifest(folder, Manifest(tuple(infos), totals, {}, "png"))


@pytest.fixture
def random_curation():
    """The functions that make such a curation and the pictures in it."""
    return curate, picture


@pytest.fixture
def make_config(tmp_path, pipeline_dir):
    """A factory of small configurations over freshly curated pictures; keys are dotted."""

    def make(name: str = "tiny", train: int = 12, val: int = 6, **changes) -> TrainConfig:
        run = RunConfig(str(tmp_path), name)
        if not (run.folder / "curate").exists():
            curate(run.folder / "curate", {"train": train, "val": val})
        config = TrainConfig(
            run=run,
            model=ModelConfig(path=str(pipeline_dir), resolution=16),
            method=METHODS[changes.pop("method", "full")](),
            optim=OptimConfig(lr=1e-3, batch_size=4),
            train=TrainingConfig(samples=32),
            ema=EmaConfig(decay=0.9),
            heldout=HeldoutConfig(every=16, items=4, bins=3, draws=2, batch_size=8),
            samples=SamplesConfig(captions=0),
            checkpoint=CheckpointConfig(every=16),
            log=LogConfig(every=4),
            # Random weights see nothing in a caption, and predict nothing.
            doctor=DoctorConfig(captions="warn", base="off"),
            tracker="none",
        )
        for key, value in changes.items():
            OmegaConf.update(holder := OmegaConf.structured(config), key, value)
            config = OmegaConf.to_object(holder)
        return config

    return make


_PEAKS: dict[str, int] = {}


@pytest.fixture
def run_training():
    """Train as the command does, in this process."""

    def run(config: TrainConfig) -> None:
        from accelerate.state import AcceleratorState, GradientState

        from finetune import doctor, joined
        from finetune.run import train

        manifest = joined.read(config)
        doctor.examine(config, manifest)
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        with _remembered_peaks():
            train(config, manifest)

    return run


@contextmanager
def _remembered_peaks() -> Iterator[None]:
    """The memory of an update is computed once for equal networks and batches: it takes a third of a small training."""
    from finetune import peak

    compute = peak.update_bytes

    def update_bytes(unet: Any, predict: Any, given: Any, *, samples: int, mixed: str) -> int:
        weights = [(n, p.shape, p.dtype, p.requires_grad) for n, p in unet.named_parameters()]
        recomputes = [getattr(m, "gradient_checkpointing", None) for m in unet.modules()]
        shapes = [(name, tensor.shape[1:], tensor.dtype) for name, tensor in given.items()]
        owner = type(predict.__self__)
        key = repr((unet, weights, recomputes, shapes, owner, predict.__name__, samples, mixed))
        if key not in _PEAKS:
            _PEAKS[key] = compute(unet, predict, given, samples=samples, mixed=mixed)
        return _PEAKS[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peak, "update_bytes", update_bytes)
        yield


def losses(config: TrainConfig) -> list[dict]:
    """The metrics without what depends on the clock."""
    records = metrics.read(config.folder / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k != "samples_per_s"} for record in records]


def digests(config: TrainConfig) -> dict[str, str]:
    """Hashes of all that a run stores, but for where it was and how fast it ran."""
    files = (p for p in sorted(config.folder.rglob("*")) if p.is_file() and not p.is_symlink())
    return {
        str(path.relative_to(config.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.relative_to(config.folder).as_posix()
        not in ("metrics.jsonl", "config.yaml", "checksums.json", ".lock")
    }


def buckets_of(config: TrainConfig) -> dict[str, object]:
    """What of the buckets is not as by default."""
    return {
        name: value
        for name, value in asdict(config.buckets).items()
        if value != getattr(BucketsConfig, name)
    }


def command(config: TrainConfig, *extra: str) -> list[str]:
    """The overrides that reproduce ``config`` on the command line."""
    return [
        f"run.root={config.run.root}",
        f"run.name={config.run.name}",
        f"method={config.method.name}",
        f"model.path={config.model.path}",
        f"model.resolution={config.model.resolution}",
        f"optim.lr={config.optim.lr}",
        f"optim.batch_size={config.optim.batch_size}",
        f"train.samples={config.train.samples}",
        f"ema.decay={config.ema.decay}",
        *(
            f"heldout.{name}={getattr(config.heldout, name)}"
            for name in ("every", "items", "bins", "draws", "batch_size")
        ),
        f"samples.captions={config.samples.captions}",
        f"checkpoint.every={config.checkpoint.every}",
        f"log.every={config.log.every}",
        f"doctor.captions={config.doctor.captions}",
        f"doctor.base={config.doctor.base}",
        f"tracker={config.tracker}",
        *(f"buckets.{name}={value}" for name, value in buckets_of(config).items()),
        *extra,
    ]


def start(arguments: list[str], cwd: Path) -> subprocess.Popen:
    """A command in a folder of its own, one thread, output kept."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
