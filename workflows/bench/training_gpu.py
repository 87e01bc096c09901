"""Updates of true sizes with random weights on a GPU: seconds, images per second, peak memory, share of its peak rate."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from hydra import compose, initialize_config_module
from torch.utils.flop_counter import FlopCounterMode

from curate.run.schema import to_dataclass
from finetune import frozen, optimizers, peak
from finetune.conditioning import Conditioning
from finetune.config import TrainConfig
from finetune.data import Batch
from finetune.ema import Ema
from finetune.loop import update
from finetune.methods import prepare
from finetune.models.original.families import SD1, SDXL, Family
from finetune.models.sd import StableDiffusion
from finetune.models.sdxl import StableDiffusionXL
from finetune.objective import NoiseSchedule
from finetune.training import Training, Window
from workflows.bench.compare import say

WARM_UP, UPDATES = 3, 10
_RATES = {  # of dense bf16 products, FLOP/s, from the makers' data sheets
    **{"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12},
    **{"A10G": 70e12, "RTX 4090": 165e12, "RTX 3090": 71e12},
}
_POOLED, _TOKENS = 1280, 77


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        name: of the line. family: of the U-Net. side: of pictures in pixels. batch: samples at a time.
        held: in which frozen weights are held. checkpointing: of gradients.
    """

    name: str
    family: Family
    side: int
    batch: int
    held: str = "fp32"
    checkpointing: bool = False


SETTINGS = (
    Setting("SD 1.5, LoRA, 512 px", SD1, 512, 1),
    Setting("SD 1.5, LoRA, 512 px", SD1, 512, 16),
    Setting("SDXL, LoRA, 1024 px", SDXL, 1024, 1),
    Setting("SDXL, LoRA, 1024 px", SDXL, 1024, 1, held="bf16", checkpointing=True),
)


def run() -> None:
    """Print a line for each setting."""
    device = torch.cuda.get_device_name()
    say(
        f"\nupdates in bf16 mixed precision, random weights, on {device}, torch {torch.__version__}"
    )
    for setting in SETTINGS:
        say(f"  {measured(setting, 'cuda', device)}")
        torch.cuda.empty_cache()


def measured(setting: Setting, device: str, name: str, updates: int = UPDATES) -> str:
    """What one setting takes, as a line."""
    cuda = device == "cuda"
    run = training(setting, device)
    batch = batch_of(setting, device)
    forecast = _forecast(run, batch, setting)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number in range(1, WARM_UP + updates + 1):
        started = time.perf_counter()
        update(run, batch)
        assert run.ema is not None
        run.ema.update(run.weights, number)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    taken = statistics.median(seconds[WARM_UP:])
    highest = torch.cuda.max_memory_allocated() if cuda else 0
    with FlopCounterMode(display=False) as counted:
        update(run, batch)
    flops = counted.get_total_flops()
    rate = next((rate for part, rate in _RATES.items() if part in name), None)
    share = (
        f"{flops / taken / rate:.0%} of {rate / 1e12:.0f} TFLOP/s"
        if rate
        else "peak rate not known"
    )
    how = f", frozen weights {setting.held}" + ", gradient checkpointing" * setting.checkpointing
    return (
        f"{setting.name}, {setting.batch} at a time{how}: {taken:.3f} s an update, {setting.batch / taken:.2f} images/s, "
        f"{flops / 1e12:.2f} TFLOP, {share}; peak {highest / 1e9:.2f} GB, forecast {forecast / 1e9:.2f} GB"
    )


def training(setting: Setting, device: str) -> Training:
    """A LoRA training of random weights that knows nothing but how to make an update."""
    with initialize_config_module("conf", version_base="1.3"):
        given = ["run.name=bench", f"optim.batch_size={setting.batch}", "method=lora"]
        cfg = compose("train", [*given, f"method.base_weights={setting.held}"])
    config = to_dataclass(cfg, TrainConfig)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="bf16")
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**setting.family.unet)
    frozen.round_to(unet.requires_grad_(False), setting.held)
    prepare(unet, config.method, 0)
    frozen.hold(unet, setting.held)
    if setting.checkpointing:
        unet.enable_gradient_checkpointing()
    weights = config.method.trainable(unet)
    prepared, optimizer = accelerator.prepare(unet, optimizers.make(config.optim, weights.values()))
    prepared.train()
    return Training(
        config=config,
        folder=Path(),
        identity={},
        accelerator=accelerator,
        model=_model(setting, unet, device),
        unet=prepared,
        weights=weights,
        optimizer=optimizer,
        ema=Ema(weights, 0.999),
        batches=cast(Any, None),
        loss_weights=None,
        heldout=None,
        samples=cast(Any, None),
        window=Window(torch.zeros((), device=device)),
    )


def _model(setting: Setting, unet: UNet2DConditionModel, device: str) -> Any:
    flat = torch.full((1000,), 0.5**0.5, device=device)
    schedule = NoiseSchedule(flat, flat, "epsilon")
    one = {"unet": unet, "schedule": schedule, "resolution": setting.side}
    names = ("tokenizer", "text_encoder", "vae", "scheduler")
    known: dict[str, Any] = one | dict.fromkeys(names)
    if setting.family is SDXL:
        more = dict.fromkeys(("tokenizer_2", "text_encoder_2"))
        return StableDiffusionXL(**known, **more, zeros_for_empty=True)
    return StableDiffusion(**known)


def batch_of(setting: Setting, device: str) -> Batch:
    """Random latents and conditioning of a model's shapes."""
    count, cells = setting.batch, setting.side // 8
    latents = torch.randn(count, 4, cells, cells, device=device)
    width = setting.family.unet["cross_attention_dim"]
    given = {"hidden": torch.randn(count, _TOKENS, width, device=device)}
    if setting.family is SDXL:
        given["pooled"] = torch.randn(count, _POOLED, device=device)
        given["time_ids"] = torch.full((count, 6), float(setting.side), device=device)
    keys = [str(number) for number in range(count)]
    timesteps = torch.randint(0, 1000, (count,), device=device)
    return Batch(keys, latents, torch.randn_like(latents), timesteps, Conditioning(given))


def _forecast(run: Training, batch: Batch, setting: Setting) -> int:
    """Bytes on the device in an update, as ``finetune.peak`` computes them."""
    unet, trained = run.model.unet, list(run.weights.values())
    given = {"latents": batch.latents, **batch.conditioning.tensors}
    held = optimizers.state_bytes("adamw", (tuple(weight.shape) for weight in trained))
    fixed = sum(w.nbytes for w in unet.parameters()) + sum(w.nbytes for w in trained)
    predict = run.model.predict
    return (
        fixed + held + peak.update_bytes(unet, predict, given, samples=setting.batch, mixed="bf16")
    )
