"""Settings of other tools: what to type here for those of kohya's, OneTrainer's and diffusers' trainers, or img2dataset.

Names that only have another name here are in ``keys.FOREIGN``. Here is what needs more: other values, several
settings, another command, or nothing at all. README.md has the same as a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from curate.run import img2dataset
from curate.run.foreign_row import Row
from curate.run.keys import example, groups, keys
from curate.run.manifest import old_manifest

TABLE_IN_README = 'README.md has a table of other trainers\' settings, "If you come from kohya"'
_CURATE = "pictures and captions are curated first"
_FILES_OF_TEXT = "text files beside the pictures are found by themselves"


_LORA = {"networks.lora": "lora", "networks.lora_flux": "lora", "lycoris.kohya": "locon"}
_OPTIMIZERS = {
    **{name: name for name in ("adamw", "adamw8bit", "adafactor", "prodigy")},
    "pagedadamw8bit": "adamw8bit",
}
_SCHEDULES = {
    **{name: name for name in ("constant", "linear", "cosine")},
    **{"constant_with_warmup": "constant", "cosine_with_restarts": "cosine"},
}
_PRECISIONS = {"no": "no", "fp16": "fp16", "bf16": "bf16"}
_TOKENS = {"75": "75", "77": "75", "150": "150", "225": "225"}
_MIN_SNR = Row("objective.weighting=min_snr objective.snr_gamma={}", "5")
_FLIP, _RESUMES = Row("data.flip={}", "true"), Row("", why="the same command again resumes")
_ATTENTION = Row("", why="torch's own attention is taken always, which saves as much")
_LATENTS = Row("", why="latents are always cached, for all runs")
_REPLAY = Row(
    "replay.share=0.25", why="the base draws pictures of its own, for replay.prompts=FILE"
)
_PICTURES = Row(
    "dataset=folder dataset.root={} run.name=mine", "FOLDER", _CURATE, command="python -m curate "
)
_CAPTION = Row(
    "dataset=folder dataset.root=FOLDER dataset.caption={}",
    "a cup",
    _CURATE,
    {},
    "python -m curate ",
)
_VAE = Row("model.path=FOLDER", why="the VAE is the pipeline's own; put another into FOLDER/vae")

ROWS = {
    # data
    "train_data_dir": _PICTURES,
    "instance_data_dir": _PICTURES,
    "caption_extension": Row("", why=f"{_CURATE}, and {_FILES_OF_TEXT}"),
    "class_tokens": _CAPTION,
    "instance_prompt": _CAPTION,
    "reg_data_dir": _REPLAY,
    "class_data_dir": _REPLAY,
    "flip_aug": _FLIP,
    "random_flip": _FLIP,
    "random_crop": Row("data.crops=4"),
    "enable_bucket": Row("buckets.enabled={}", "true"),
    "bucket_reso_steps": Row("buckets.enabled=true buckets.step={}", "64"),
    "min_bucket_reso": Row("buckets.enabled=true buckets.min={}", "256"),
    "max_bucket_reso": Row("buckets.enabled=true buckets.max={}", "1024"),
    "bucket_no_upscale": Row("buckets.enabled=true buckets.enlarge=refuse"),
    "cache_latents": _LATENTS,
    "cache_latents_to_disk": _LATENTS,
    "masked_loss": Row("objective.mask={}", "true", "masks are NAME.mask.png beside NAME.jpg"),
    # captions
    "shuffle_caption": Row("train.shuffle_caption={}", "true"),
    "keep_tokens": Row("train.shuffle_caption=true train.keep_tokens={}", "1"),
    "caption_tag_dropout_rate": Row("train.caption_tag_dropout={}", "0.1"),
    "caption_dropout_rate": Row("train.caption_dropout={}", "0.1"),
    "max_token_length": Row("model.caption_tokens={}", "150", values=_TOKENS),
    "clip_skip": Row("model.clip_skip={}", "2", "1 is the last layer, as in kohya's trainers"),
    # model and method
    "vae": _VAE,
    "pretrained_vae_model_name_or_path": _VAE,
    "v_parameterization": Row(
        "model.prediction_type=v_prediction",
        why="it is read from the model's scheduler; where that does not say it",
    ),
    "network_module": Row("method={}", "lora", values=_LORA),
    "network_train_unet_only": Row("", why="the U-Net alone is trained by default"),
    "train_text_encoder": Row("method.text_encoder={}", "true"),
    "text_encoder_lr": Row("method.text_encoder=true optim.text_encoder_lr={}", "5e-6"),
    "fp8_base": Row("method.base_weights=fp8"),
    "xformers": _ATTENTION,
    "sdpa": _ATTENTION,
    "mem_eff_attn": _ATTENTION,
    "enable_xformers_memory_efficient_attention": _ATTENTION,
    # optimizer
    "optimizer_type": Row("optim={}", "adamw", values=_OPTIMIZERS),
    "use_8bit_adam": Row("optim=adamw8bit"),
    "lr_scheduler": Row("optim.schedule={}", "constant", values=_SCHEDULES),
    "mixed_precision": Row("optim.mixed_precision={}", "bf16", values=_PRECISIONS),
    "seed": Row("train.seed={}", "0"),
    # loss
    "min_snr_gamma": _MIN_SNR,
    "snr_gamma": _MIN_SNR,
    "noise_offset": Row("objective.noise_offset={}", "0.05"),
    "ip_noise_gamma": Row("objective.input_perturbation={}", "0.1"),
    "debiased_estimation_loss": Row("objective.weighting=debiased"),
    "zero_terminal_snr": Row("objective.zero_terminal_snr={}", "true"),
    # the course of a training
    "use_ema": Row("", why="it is on; ema.decay=null switches it off"),
    "save_state": _RESUMES,
    "resume": _RESUMES,
    "resume_from_checkpoint": _RESUMES,
}  # fmt: skip
_IN_STEPS = {
    **dict.fromkeys(("steps", "max_train_steps", "max_steps"), "train.samples"),
    **dict.fromkeys(("save_every_n_steps", "checkpointing_steps"), "checkpoint.every"),
    **dict.fromkeys(("lr_warmup_steps", "warmup_steps"), "optim.warmup"),
    **dict.fromkeys(("sample_every_n_steps", "validation_steps"), "heldout.every"),
}
_IN_EPOCHS = {
    **dict.fromkeys(
        ("epochs", "num_train_epochs", "max_train_epochs", "num_epochs"), "train.samples"
    ),
    "save_every_n_epochs": "checkpoint.every",
    **dict.fromkeys(("sample_every_n_epochs", "validation_epochs"), "heldout.every"),
}


def advice(name: str, value: str, typed: Sequence[str], section: str) -> str:
    """What to type for a setting of another tool; "" where it is none, or has only another name here.

    Args:
        name: as typed, with or without a group in front.
        value: as typed; "" for none.
        typed: all that was typed.
        section: of the command; none but a curation and a training have an answer.
    """
    if section not in ("curate", "train") or name in groups(section):
        return ""
    ours = keys(section).get(name)
    if ours is not None and not ours.is_group:
        return ""
    last = name.rpartition(".")[2].replace("-", "_").lower()
    if section == "curate":
        return img2dataset.ROWS[last].say(value) if last in img2dataset.ROWS else ""
    if last in _IN_STEPS:
        return _steps(_IN_STEPS[last], value, typed)
    if last in _IN_EPOCHS:
        return _epochs(_IN_EPOCHS[last], value, typed)
    if last == "resolution":
        return sides(value)
    if last in ("sample_prompts", "validation_prompt", "validation_prompts"):
        return _prompts(value)
    return ROWS[last].say(value) if last in ROWS else ""


def _counts(key: str) -> str:
    what = "the length of a training is" if key == "train.samples" else f"{key} is"
    return f"{what} counted in samples"


def _steps(key: str, value: str, typed: Sequence[str]) -> str:
    """Steps times batch size."""
    batch = _last(typed, "optim.batch_size", "train_batch_size") or example(
        "train", "optim.batch_size"
    )
    if _is_count(value) and _is_count(batch):
        return (
            f"{_counts(key)}: type {key}={int(value) * int(batch)}, which is {value} steps of "
            f"optim.batch_size={batch}"
        )
    return f"{_counts(key)}, steps times batch size: for 1000 steps of 16, type {key}=16000"


def _epochs(key: str, value: str, typed: Sequence[str]) -> str:
    """Epochs times pictures, of which there are as many as the run's manifest says."""
    pictures = _pictures(typed)
    if _is_count(value) and pictures:
        return (
            f"{_counts(key)}: type {key}={int(value) * pictures}, which is {value} times the {pictures} "
            "training pictures"
        )
    return (
        f"{_counts(key)}, epochs times pictures: for 10 epochs of 1500 pictures, type {key}=15000"
    )


def _pictures(typed: Sequence[str]) -> int:
    """How many the run has to train on; 0 where that is not known."""
    if any(text.lstrip("+").startswith("data.runs") for text in typed):
        return 0
    root = Path(_last(typed, "run.root") or "runs").expanduser()
    name = _last(typed, "data.run") or _last(typed, "run.name")
    found = (
        [root / name] if name else [path.parents[1] for path in root.glob("*/curate/manifest.json")]
    )
    manifest = old_manifest(found[0] / "curate") if len(found) == 1 else None
    return sum(shard.samples for shard in manifest.shards_of("train")) if manifest else 0


def sides(value: str) -> str:
    """What to type for a resolution of two sides, ``512,768``; "" for one side."""
    found = re.fullmatch(r"\D?(\d+)\s*[,x]\s*(\d+)\D?", value)
    if not found:
        return ""
    width, height = int(found[1]), int(found[2])
    if width == height:
        return f"pictures are squares: type model.resolution={width}"
    side = max(math.isqrt(width * height) // 8 * 8, 8)
    return (
        "pictures are squares, or in buckets of as many pixels at most: type "
        f"model.resolution={side} buckets.enabled=true"
    )


def _prompts(value: str) -> str:
    if not value or re.search(r"\.(txt|toml|json)$", value):
        why = "a file is not read here, the prompts are typed" if value else ""
        return Row("samples.prompts={}", '["a red cup"]', why).say("")
    return Row("samples.prompts={}").say(as_list(value))


def as_list(value: str) -> str:
    """A list in Hydra's grammar of what was typed for one; entries that Hydra cannot read are quoted.

    >>> as_list("to_q,to_k"), as_list("[a (blue:1.2) cup]")
    ('[to_q,to_k]', '["a (blue:1.2) cup"]')
    """
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    parts = re.split(r",(?![^(]*\))", inner)  # not inside parentheses
    return f"[{','.join(_entry(part.strip()) for part in parts if part.strip())}]"


def _entry(text: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(f"key=[{text}]").value()
    except HydraException:
        value = None
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], dict | list):
        return text
    bare = text.replace('"', '\\"')
    return f'"{bare}"'


def _last(typed: Sequence[str], *names: str) -> str:
    """The value that was typed last for one of these keys; "" where none was."""
    pairs = [text.lstrip("+-").partition("=") for text in typed]
    found = [value for key, _, value in pairs if key in names]
    return found[-1].strip("'\"") if found else ""


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0
