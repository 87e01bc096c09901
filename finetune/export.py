"""Exports that other programs load, each proven by loading it again and comparing one forward pass.

The command ``python -m finetune.export RUN step=250`` exports any checkpoint of a training.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import checksums, cli, folder, provenance
from curate.run.files import naming, read_json, replace_folder, sha256_of, write_json, write_text
from curate.run.locks import locked
from curate.run.schema import UserError
from finetune.drawing import as_trained
from finetune.methods import Method
from finetune.models.config import ModelConfig

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from finetune.checkpoint import Checkpoint
    from finetune.config import TrainConfig
    from finetune.drawing.as_trained import AsTrained
    from finetune.models.interface import LatentDiffusion
    from finetune.opened_run import FinetuneRun

_DOES = """Export the weights of any checkpoint of a training, proven by loading them again.

Training exports the best checkpoint to RUN/finetune/export. This writes another one beside it, to
RUN/finetune/export-step-00000250: of method=full a whole pipeline for from_pretrained, of controlnet a folder for
ControlNetModel.from_pretrained, else an adapter
in two layouts: diffusers' for load_lora_weights (of lokr and loha peft's), and kohya's, which ComfyUI
and AUTOMATIC1111 load, in RUN-step-00000250.safetensors. Averaged weights are taken where training
kept an average."""

SOURCE = "checkpoint.json"  # in an export: which checkpoint's weights these are
TOLERANCE = 1e-4  # of the largest output; the same fp32 weights differ by rounding only


class ExportMismatch(RuntimeError):
    """What was written does not compute what is in memory."""


def export(
    method: Method,
    config: ModelConfig,
    model: LatentDiffusion,
    folder: Path,
    source: Checkpoint | None = None,
    name: str = "model",
    trigger: str = "",
    to_set: AsTrained | None = None,
) -> float:
    """Write the trained weights of ``model`` to ``folder``; what is there stays until then.

    Args:
        method: the one that trained them; it decides the format.
        config: of the base model, into which the export may be loaded for the comparison.
        model: with the weights to export in place.
        folder: is replaced only after the comparison.
        source: the checkpoint that the weights are of, for :func:`holds`.
        name: of the model, for the file that other programs load. trigger: the word in front of all captions.
        to_set: what has to be set to draw with it, for a ``README.md`` beside the weights.

    Returns:
        The largest absolute difference between the outputs of U-Net and trained text encoders in memory and after
        reloading, over all ``method.readers``.

    Raises:
        ExportMismatch: the difference is beyond rounding; ``folder`` is as it was.
        OSError: the disk is full or refuses; ``folder`` is as it was.
    """
    from finetune.checkpoint import os_errors

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with naming(folder), os_errors():
            method.save(model, part)
            method.save_for_others(model, config, part, name, trigger)
            if to_set and to_set.readme:
                write_text(part / as_trained.FILE, to_set.readme)
            if source:
                write_json(part / SOURCE, _identity(source))
        parts = list(method.networks(model))
        difference = max(
            _compare(method, model, pipeline, parts)
            for pipeline in method.reloaded(config, part, name)
        )
        replace_folder(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return difference


def described(
    method: Method, folder: Path, difference: float, to_set: AsTrained | None = None
) -> str:
    """What a command prints of an export: where it is, what :func:`export` returned, and what it noted."""
    found = (
        f"export  {folder} (loaded again by {method.readers}: largest difference {difference:.1e})"
    )
    return "\n".join([found, *(f"draw    {note}" for note in (to_set.notes if to_set else ()))])


def to_set_of(config: TrainConfig) -> AsTrained:
    """What has to be set to draw with what a training exports."""
    return as_trained.AsTrained.of(asdict(config))


def holds(folder: Path, source: Checkpoint) -> bool:
    """Whether ``folder`` is a finished export of a checkpoint."""
    return (known := read_json(folder / SOURCE)) is not None and known == _identity(source)


def _identity(source: Checkpoint) -> dict[str, Any]:
    digest = sha256_of(source.weights_path())
    known = {"step": source.step, "samples_seen": source.samples_seen, "weights_sha256": digest}
    return known if source.scale == 1 else {**known, "scale": source.scale}


def _compare(
    method: Method, model: LatentDiffusion, reloaded: DiffusionPipeline, parts: Sequence[str]
) -> float:
    """The largest difference between what ``model``'s networks ``parts`` compute and what those of ``reloaded`` do."""
    import torch

    other: Any = copy(model)
    for part in parts:
        getattr(model, part).eval()
        setattr(other, part, getattr(reloaded, part).to(model.device).eval())

    generator = torch.Generator().manual_seed(0)
    unet = model.unet.config
    size = unet["sample_size"] if isinstance(unet["sample_size"], int) else 8
    noisy = torch.randn((1, unet["in_channels"], size, size), generator=generator).to(model.device)
    timesteps = torch.tensor([500], device=model.device)
    tokens, found = model.tokens(["a picture"]), []
    further = method.example(model, noisy)
    for each in (model, other):
        with torch.no_grad():
            text = each.encode_tokens(tokens)
            given = replace(text, tensors=text.tensors | further)
            output = each.predict(each.unet, noisy, timesteps, given).float()
        found.append({**text.tensors, "prediction": output})
    differences = [0.0]
    for name, ours in found[0].items():
        difference, largest = (ours - found[1][name]).abs().max().item(), ours.abs().max().item()
        if not difference <= TOLERANCE * max(1.0, largest):
            what = "" if name == "prediction" else " of its text encoder"
            raise ExportMismatch(
                f"the export computes something else: outputs{what} differ by {difference} of {largest}"
            )
        differences.append(difference)
    return max(differences)


def trigger_of(config: TrainConfig) -> str:
    """The words that ``dataset.trigger`` put in front of the captions of a training, with commas; "" for none."""
    found = [
        provenance.read_config(each / "config.yaml").get("dataset") for each in config.curations
    ]
    words = [each.get("trigger") for each in found if isinstance(each, dict)]
    return ", ".join(dict.fromkeys(word for word in words if word))


def export_checkpoint(run: FinetuneRun, stored: Checkpoint) -> tuple[Path, float]:
    """Export one checkpoint of a run.

    Returns:
        The folder, and the largest difference as `export` gives it.

    Raises:
        UserError: the base model is not the one that was trained.
        ExportMismatch: see `export`.
    """
    from finetune import doctor
    from finetune.ema import copy_into
    from finetune.methods import prepare_model

    config, model = run.config, run.model()
    weights = {"weights": model.fingerprint()}
    doctor.refuse_change(run.finetune_dir, stored.state()["identity"], weights)
    prepare_model(model, config.method, config.train.seed)
    copy_into(config.method.trained(model), values_of(config, model, stored))
    target = run.finetune_dir / f"export-{stored.path.name}"
    name = f"{run.run_dir.name}-{stored.path.name}"
    word = trigger_of(config)
    to_set = to_set_of(config)
    difference = export(config.method, config.model, model, target, stored, name, word, to_set)
    # Only now, so that an export that fails takes the list of the other files from nobody.
    with checksums.updated(run.finetune_dir, (f"{target.name}/",)):
        pass
    return target, difference


def values_of(config: TrainConfig, model: LatentDiffusion, stored: Checkpoint) -> dict[str, Tensor]:
    """The weights of a checkpoint at its scale, by name; ``model`` is prepared."""
    if stored.scale == 1:
        return stored.weights()
    return config.method.scaled(
        model.unet, stored.weights(), stored.scale, partial(base_values, config, model)
    )


def base_values(config: TrainConfig, model: LatentDiffusion) -> dict[str, Tensor]:
    """What the base has itself of the weights that are trained, read from its files."""
    from finetune.models import load_pipeline

    own = dict(load_pipeline(config.model).unet.named_parameters())
    return {name: own[name].detach() for name in config.method.trainable(model.unet) if name in own}


def _chosen(step: str, run_dir: Path) -> Path:
    """The folder of the checkpoint that ``step`` names: a number of updates, ``best`` or ``last``."""
    checkpoints = run_dir / "finetune" / "checkpoints"
    present = sorted(int(path.name[5:]) for path in checkpoints.glob("step-*"))
    accepted = ", ".join(map(str, [*present, *(["best", "last"] if present else [])]))
    if not present:
        raise UserError(f"{checkpoints} holds no checkpoints; nothing was trained there yet")
    found = re.fullmatch(r"step=(\d+|best|last)", step)
    if not found:
        asked = f"{step} is no checkpoint" if step else "no checkpoint is named"
        raise UserError(f"{asked}; type step= and one of: {accepted}. Such as step={present[-1]}")
    if not found[1].isdigit():
        return checkpoints / (checkpoints / found[1]).readlink()
    if int(found[1]) not in present:
        raise UserError(
            f"{run_dir} has no checkpoint of step {int(found[1])}; type step= and one of: {accepted}"
        )
    return checkpoints / f"step-{int(found[1]):08d}"


def main() -> None:
    """Find the checkpoint, then load the model and export it."""
    parser = folder.parser("export", _DOES, package="finetune")
    parser.add_argument(
        "step", nargs="?", default="", metavar="step=N", help="updates, or best or last: step=250"
    )
    given = parser.parse_args()
    run_dir = folder.stage_dir(given.run, folder.TRAINED).resolve().parent
    path = _chosen(given.step, run_dir)
    with locked(run_dir / "finetune"):
        from finetune.opened_run import load_run

        run = load_run(run_dir)
        stored = next(
            checkpoint for checkpoint in run.checkpoints() if checkpoint.path.name == path.name
        )
        target, difference = export_checkpoint(run, stored)
    print(described(run.config.method, target, difference, to_set_of(run.config)))


if __name__ == "__main__":
    cli.run(main)
