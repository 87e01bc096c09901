"""Small trainings that can be timed one update at a time."""

from __future__ import annotations

import io
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hydra import compose, initialize_config_module
from PIL import Image, ImageOps
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from curate.pack.plan import Plan
from curate.pack.writer import write_shard
from curate.run.manifest import Manifest, write_manifest
from curate.run.schema import to_dataclass
from finetune import optimizers
from finetune.cache import encode_shards, load_split
from finetune.config import TrainConfig
from finetune.data import Batches
from finetune.ema import Ema
from finetune.loop import update
from finetune.methods import prepare
from finetune.models import load_model
from finetune.models.config import PACKAGES
from finetune.models.original.families import SD1
from finetune.training import Training, Window
from workflows.bench.data import Photographs

_NARROWER, _TOKENS = 4, 77


@dataclass
class Case:
    """A training of ``batch`` samples an update.

    Attributes:
        run: with everything that the loop needs. pictures: how many there are.
        files: the stored pictures, as a data set on a disk gives them. captions: one of each.
    """

    folder: Path
    run: Training
    manifest: Manifest
    files: list[bytes]
    captions: list[str]
    step: int = 0
    _fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Samples of an update."""
        return self.run.config.optim.batch_size

    @property
    def pictures(self) -> int:
        """How many there are."""
        return len(self.files)

    def load(self) -> None:
        """What an update is given, from the cache."""
        self.step += 1
        self.run.batches(self.step)

    def ours(self) -> None:
        """An update as the loop makes it, with its average."""
        run = self.run
        self.step += 1
        batch = run.batches(self.step).to(run.accelerator.device)
        update(run, batch)
        assert run.ema is not None
        run.ema.update(run.weights, self.step)

    def bare(self) -> None:
        """An update on tensors that are there already."""
        if not self._fixed:
            batch = self.run.batches(0)
            noisy = self.run.model.schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
            self._fixed = {"batch": batch, "noisy": noisy}
        batch = self._fixed["batch"]
        self._learn(
            self._fixed["noisy"], batch.timesteps, batch.conditioning["hidden"], batch.noise
        )

    def without_caches(self) -> None:
        """An update that starts with the pictures' files and captions."""
        run, model = self.run, cast(Any, self.run.model)
        start = self.step * self.batch % self.pictures
        self.step += 1
        chosen = [(start + n) % self.pictures for n in range(self.batch)]
        pixels = torch.stack([_pixels(self.files[n], model.resolution) for n in chosen])
        with torch.no_grad():
            latents = model.vae.encode(pixels).latent_dist.sample()
            latents = latents * model.vae.config.scaling_factor
            tokens = model.tokenizer(
                [self.captions[n] for n in chosen],
                padding="max_length",
                max_length=model.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            hidden = model.text_encoder(tokens.input_ids)[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, len(run.model.schedule), (self.batch,))
        noisy = run.model.schedule.add_noise(latents, noise, timesteps)
        self._learn(noisy, timesteps, hidden, noise)

    def _learn(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        hidden: torch.Tensor,
        noise: torch.Tensor,
    ) -> None:
        run = self.run
        predicted = run.unet(noisy, timesteps, encoder_hidden_states=hidden).sample
        functional.mse_loss(predicted.float(), noise.float()).backward()
        torch.nn.utils.clip_grad_norm_(run.weights.values(), 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()

    def encoding(self, rounds: int) -> tuple[list[float], list[float]]:
        """Seconds to fill a cache, and of VAE and text encoder alone in the same batches, by round."""
        from finetune.cache.encoders import ENCODE_BATCH, pictures_at_once

        model, cache = self.run.model, self.folder / "timed"
        size = pictures_at_once(model.resolution)
        pixels = torch.stack([_pixels(file, model.resolution) for file in self.files])

        def fill() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            encode_shards(
                model,
                self.run.config.curate_dir,
                self.manifest.shards_of("train"),
                cache,
                progress=False,
            )

        def alone() -> None:
            for part in pixels.split(size):
                model.encode_images(part)
            for start in range(0, self.pictures, ENCODE_BATCH):
                captions = self.captions[start : start + ENCODE_BATCH]
                model.encode_captions(captions + captions[-1:] * (ENCODE_BATCH - len(captions)))

        found = self.timed({"fill": fill, "alone": alone}, rounds)
        return found["fill"], found["alone"]

    def bytes_a_pair(self) -> float:
        """Of the cache's files."""
        files = (self.folder / "cache").rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file()) / self.pictures

    @staticmethod
    def warm_up(variants: Iterable[Callable[[], None]]) -> None:
        """Call each once."""
        for variant in variants:
            variant()

    @staticmethod
    def timed(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each variant in each round, one after the other within a round."""
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, variant in variants.items():
                started = time.perf_counter()
                variant()
                seconds[name].append(time.perf_counter() - started)
        return seconds

    @staticmethod
    def median(seconds: list[float]) -> float:
        """Of the rounds."""
        return statistics.median(seconds)

    @staticmethod
    def ratio(others: list[float], own: list[float]) -> float:
        """How many times as fast as another variant: the median of the ratios within each round."""
        return statistics.median(other / mine for other, mine in zip(others, own, strict=True))


def starter(folder: Path, method: str) -> Case:
    """The built-in model at 64 px, 16 samples an update."""
    return _case(folder, method, ["model=starter"], batch=16, pictures=64)


def reduced(folder: Path, method: str) -> Case:
    """Stable Diffusion 1.5's shape, a quarter as wide, at 512 px, a sample an update."""
    path = folder / "model"
    _save_reduced(path)
    model = [f"model.path={path}", "model.resolution=512"]
    return _case(folder, method, model, batch=1, pictures=4)


def _case(folder: Path, method: str, model: list[str], *, batch: int, pictures: int) -> Case:
    drawn = Photographs(pictures, width=640).source()
    candidates = list(drawn.candidates())
    files = [drawn.load(each.location) for each in candidates]
    captions = [each.captions[0] for each in candidates]
    manifest = _write_shards(folder / "bench" / "curate", files, captions)
    with initialize_config_module("conf", version_base="1.3"):
        given = [f"run.root={folder}", "run.name=bench", f"method={method}", *model]
        cfg = compose("train", [*given, f"optim.batch_size={batch}"])
    config = to_dataclass(cfg, TrainConfig)
    return Case(folder, _training(folder, config, manifest), manifest, files, captions)


def _write_shards(curate_dir: Path, files: list[bytes], captions: list[str]) -> Manifest:
    keys = [f"{number:06d}" for number in range(len(files))]
    rows = [
        {
            "key": key,
            "split": "train",
            "captions": [text],
            "sha256": key,
            "width": 640,
            "height": 480,
        }
        for key, text in zip(keys, captions, strict=True)
    ]
    planned = Plan("shards/train/000000.tar", "train", len(keys))
    infos = [write_shard(curate_dir, planned, rows, "jpg", "jpg", files)]
    totals = {"pairs_in": len(keys), "kept": len(keys), "dropped": 0, "unreadable": 0}
    manifest = Manifest(tuple(infos), totals, {}, "jpg")
    write_manifest(curate_dir, manifest)
    return manifest


def _training(folder: Path, config: TrainConfig, manifest: Manifest) -> Training:
    accelerator = Accelerator(cpu=True)
    model = load_model(config.model)
    prepare(model.unet, config.method, 0)
    shards, cache = manifest.shards_of("train"), folder / "cache"
    encode_shards(model, config.curate_dir, shards, cache, progress=False)
    split = load_split(model, shards, cache)
    weights = config.method.trainable(model.unet)
    unet, optimizer = accelerator.prepare(
        model.unet, optimizers.make(config.optim, weights.values())
    )
    unet.train()
    batches = partial(
        Batches, batch_size=config.optim.batch_size, caption_dropout=0.1, timesteps=1000, seed=0
    )
    return Training(
        config=config,
        folder=config.folder,
        identity={},
        accelerator=accelerator,
        model=model,
        unet=unet,
        weights=weights,
        optimizer=optimizer,
        ema=Ema(weights, 0.999),
        batches=batches(split),
        loss_weights=None,
        heldout=None,
        samples=cast(Any, None),
        window=Window(torch.zeros(())),
    )


def _pixels(file: bytes, side: int) -> torch.Tensor:
    """[3, side, side] in [-1, 1]: the shorter side resized, the centre cropped."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    square = ImageOps.fit(image, (side, side), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def _save_reduced(path: Path) -> None:
    """Write a pipeline of random weights."""
    torch.manual_seed(0)
    narrow = [width // _NARROWER for width in SD1.unet["block_out_channels"]]
    text = {
        name: value // _NARROWER if name in ("hidden_size", "intermediate_size") else value
        for name, value in SD1.texts["text_encoder"].items()
        if name not in ("architectures", "model_type")
    }
    unet = SD1.unet | {
        "block_out_channels": narrow,
        "cross_attention_dim": text["hidden_size"],
        "sample_size": 64,
        "norm_num_groups": 16,
    }
    vae: dict[str, Any] = SD1.vae | {
        "block_out_channels": [width // _NARROWER for width in SD1.vae["block_out_channels"]]
    }
    path.mkdir(parents=True)
    StableDiffusionPipeline(
        vae=AutoencoderKL(**vae),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        tokenizer=_tokenizer(),
        unet=UNet2DConditionModel(**unet),
        scheduler=DDPMScheduler(  # type: ignore[arg-type]
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
        ),
        safety_checker=cast(Any, None),
        feature_extractor=cast(Any, None),
        requires_safety_checker=False,
    ).save_pretrained(path)


def _tokenizer() -> CLIPTokenizer:
    """The built-in model's words in CLIP's 77 tokens."""
    folder = PACKAGES / "finetune" / "starter_ldm" / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder, model_max_length=_TOKENS)
