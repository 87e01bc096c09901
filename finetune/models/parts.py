"""Parts that the pipelines have in common: how they are loaded, checked, read and identified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from curate.clip.scorer import tokenised
from curate.run.schema import UserError
from finetune.conditioning import Conditioning
from finetune.models import chunks as chunked
from finetune.models import noise
from finetune.models.config import ModelConfig
from finetune.models.original import reader
from finetune.objective import NoiseSchedule

Kind = TypeVar("Kind", bound=DiffusionPipeline)
IDS = "input_ids"  # of the first text encoder; a conditioning has it in place of hidden states
TOKENS, HIDDEN = "tokens", "hidden"  # in which form captions are encoded, see the interface
PARKED = torch.device("cpu")  # where encoders wait that are not needed


def from_pretrained(kind: type[Kind], config: ModelConfig, **options: Any) -> Kind:
    """The pipeline as diffusers loads it, in fp32, on the CPU.

    Raises:
        UserError: the files are not there or not a pipeline's, or the hub does not answer.
    """
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()  # of reading files; downloads keep theirs
    if file := config.single_file():
        pipeline = reader.load(kind, config, file, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
    try:
        pipeline = kind.from_pretrained(
            config.location(),
            revision=config.revision,
            variant=config.variant,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except OSError as error:
        raise config.not_loaded(error) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def refuse_other_unets(config: ModelConfig, pipeline: Any) -> None:
    """Refuse a U-Net that takes more than noisy latents, or gives more than a prediction of their shape.

    Raises:
        UserError: says which it is.
    """
    unet, channels = pipeline.unet.config, pipeline.vae.config["latent_channels"]
    if unet["in_channels"] != channels:
        raise UserError(
            f"model.path={config.path} has a U-Net of {unet['in_channels']} input channels and a VAE of {channels}: "
            "inpainting, depth and instruction models are not supported; give a plain text-to-image pipeline"
        )
    if unet["out_channels"] != channels:
        raise UserError(
            f"model.path={config.path} has a U-Net of {unet['out_channels']} output channels and a VAE of {channels}: "
            "models that predict a variance too are not supported; give a plain text-to-image pipeline"
        )


def scheduler_of(config: ModelConfig, pipeline: Any) -> Any:
    """The pipeline's scheduler, with ``model.prediction_type`` and ``model.beta_*`` if they are set.

    Raises:
        UserError: its noise levels are no table of timesteps.
    """
    scheduler = pipeline.scheduler
    settings = scheduler.config
    has_table = hasattr(scheduler, "alphas_cumprod")
    if not has_table or settings.get("timestep_type", "discrete") != "discrete":
        raise UserError(
            f"model.path={config.path} has the scheduler {type(scheduler).__name__} "
            f"{'without a table of noise levels' if not has_table else 'with timestep_type=continuous'}: models "
            "trained on continuous noise levels, such as EDM's, are not supported; give a pipeline of timesteps"
        )
    return noise.with_settings(config, scheduler)


def frozen_parts(
    config: ModelConfig, pipeline: Any, modules: Sequence[nn.Module], device: torch.device | str
) -> tuple[Any, NoiseSchedule]:
    """Check a pipeline, and put ``modules`` onto ``device``, frozen and in evaluation mode.

    Returns:
        The scheduler, and its noise levels on ``device``.

    Raises:
        UserError: as :func:`refuse_other_unets` and :func:`scheduler_of`.
    """
    refuse_other_unets(config, pipeline)
    scheduler = scheduler_of(config, pipeline)
    for module in modules:
        module.requires_grad_(False).eval().to(device)
    return scheduler, NoiseSchedule.from_scheduler(scheduler).to(torch.device(device))


def park(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Move what is not trained from a model's device to the CPU, and give its memory back."""
    if device.type == PARKED.type:
        return
    for module in modules:
        if not any(weight.requires_grad for weight in module.parameters()):
            module.to(PARKED)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def fetch(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Move modules to the device of their model, where they are not there."""
    for module in modules:
        if next(module.parameters()).device != device:
            module.to(device)


def pixels_per_latent(vae: AutoencoderKL) -> int:
    """The VAE halves a side between any two of its levels."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def tokens(tokenizer: Any, captions: Sequence[str], chunks: int = 1) -> Any:
    """``input_ids`` and ``attention_mask`` [B, L], padded and cut to the length that the tokenizer has.

    Of several chunks [B, chunks × L], see ``finetune.models.chunks``.
    """
    if chunks > 1:
        return chunked.tokens(tokenizer, captions, chunks)
    return tokenizer(
        [tokenised(caption) for caption in captions],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )


def token_entries(
    tokenizers: Sequence[Any], captions: Sequence[str], chunks: int = 1
) -> dict[str, Tensor]:
    """``input_ids`` [B, chunks × L] int64 of the first tokenizer, ``input_ids_2`` of the second."""
    names = (
        f"{IDS}{'' if number == 1 else f'_{number}'}" for number, _ in enumerate(tokenizers, 1)
    )
    found = (tokens(tokenizer, captions, chunks).input_ids for tokenizer in tokenizers)
    return dict(zip(names, found, strict=True))


@contextmanager
def encoding(encoders: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Let text encoders compute inside a ``with`` block: with gradients and in mixed precision only where they are trained.

    Elsewhere, with frozen weights or without gradients, they compute in fp32, whatever precision the U-Net has: hidden
    states are then those that the cache holds.
    """
    wanted = torch.is_grad_enabled() and any(
        weight.requires_grad for encoder in encoders for weight in encoder.parameters()
    )
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(wanted))
        if not wanted:
            stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def encoded(model: Any, conditioning: Conditioning) -> Conditioning:
    """The same with hidden states in place of token ids, if it has these."""
    return model.encode_tokens(conditioning) if IDS in conditioning.tensors else conditioning


def last_layers(encoder: Any, count: int) -> list[str]:
    """The names of a CLIP's last layers."""
    layers = encoder.config.num_hidden_layers
    return [f"encoder.layers.{number}" for number in range(layers - count, layers)]


def with_hidden(conditioning: Conditioning, found: dict[str, Tensor]) -> Conditioning:
    """What was ``found`` by the text encoders, and the entries of the picture."""
    kept = {name: conditioning[name] for name in conditioning.of_picture}
    return Conditioning(found | kept, conditioning.of_picture)


def cut_off(tokenizer: Any, caption: str, chunks: int) -> str:
    """The end of a caption beyond so many chunks of the tokenizer's length, as it spells it; "" if there is none."""
    ids = tokenizer(tokenised(caption), add_special_tokens=False, verbose=False).input_ids
    limit = chunks * (tokenizer.model_max_length - 2)
    return tokenizer.decode(ids[limit:]) if len(ids) > limit else ""


def vocabulary(tokenizer: Any) -> bytes:
    """All that tokens depend on, the texts aside."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    del content["padding"], content["truncation"]  # traces of the last call
    return json.dumps([content, tokenizer.model_max_length]).encode()


def tokens_fingerprint(tokenizers: Sequence[Any], *settings: object) -> str:
    """Hex digest of all that token ids depend on, the texts aside."""
    digest = hashlib.sha256(json.dumps([TOKENS, *settings]).encode())
    for tokenizer in tokenizers:
        digest.update(vocabulary(tokenizer))
    return digest.hexdigest()


def hash_weights(module: nn.Module, *digests: Any) -> None:
    """Give hashlib's ``digests`` the names, shapes and values of all weights."""
    for name, weight in sorted(module.state_dict().items()):
        for digest in digests:
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().numpy())
