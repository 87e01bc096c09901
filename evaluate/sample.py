"""The command ``python -m evaluate.sample``: check the configuration, then draw pictures for prompts."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import hydra
from omegaconf import DictConfig

from curate.run import cli as command
from curate.run.files import remove_parts
from curate.run.locks import locked
from curate.run.next_command import COMMANDS, next_arguments
from curate.run.overrides import is_override, key_of
from curate.run.schema import UserError, to_dataclass
from evaluate.sample_config import SampleConfig

_INSTEAD = "Type clip=vit_b32_openai or another CLIP, or best_of=1 to keep every picture"


@hydra.main(version_base="1.3", config_path="../conf", config_name="sample")
@command.polite
def main(cfg: DictConfig) -> None:
    """Refuse what cannot be drawn before anything heavy is imported."""
    start(to_dataclass(cfg, SampleConfig))


def start(config: SampleConfig) -> None:
    """Draw while nobody trains or judges the run, or draws into the same folder.

    Raises:
        UserError: as ``prompts.gather``, ``sample_choice.choices`` and ``sample_run.sample``.
        Busy: another process is at work.
    """
    from curate.run import devices
    from evaluate.drawing import prompts, sample_choice

    devices.refuse_absent("device", config.device)
    found = prompts.gather(config.prompt, config.prompt_file, config.limit)
    _check_picture("image", config.image, "a picture to start from")
    _check_picture("control", config.control, "a picture to draw from")
    out = _settle(config)
    _check_control(config)
    choices = sample_choice.choices(config)
    _settle_clip(config)
    stages = [] if config.model else [config.run.folder / name for name in ("finetune", "evaluate")]
    with ExitStack() as locks:
        for stage in stages:
            locks.enter_context(locked(stage, shared=True))
        locks.enter_context(locked(out, "out"))
        if config.out is None:
            remove_parts(out)  # of killed commands; another folder may hold others' files
        from evaluate.drawing.sample_run import sample

        sample(config, found, choices, out, say=print)


def _check_picture(key: str, file: str | None, meaning: str) -> None:
    """Look at the header of a picture."""
    if file is None:
        return
    from curate.measures.decode import probe
    from curate.measures.unreadable import UnreadableImage

    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{key}={file} is no file; type {key}=FILE, {meaning}")
    try:
        probe(path.read_bytes())
    except UnreadableImage as error:
        raise UserError(f"{key}={file} cannot be read as a picture: {error}") from error


def _check_control(config: SampleConfig) -> None:
    """Refuse a condition where nothing follows one, and say where one is missing."""
    from curate.run.provenance import read_config
    from finetune import canny
    from finetune.condition_kinds import CANNY

    method: object = None
    if config.model is None:
        method = read_config(config.run.folder / "finetune" / "config.yaml").get("method")
    condition = method.get("condition") if isinstance(method, dict) else None
    if condition is None and config.control is not None:
        whose = "model= draws from a base model"
        if isinstance(method, dict):
            whose = f"{config.run.folder} was trained with method={method.get('name')}"
        raise UserError(f"control is for a run of method=controlnet, and {whose}; remove control")
    if condition is None:
        return
    if config.control is None:
        print("note    without control=FILE a ControlNet draws what its base draws")
    elif condition == CANNY:
        canny.refuse_absent("control=FILE of a run with method.condition=canny")


def _settle(config: SampleConfig) -> Path:
    """Find the run or the base model; returns the folder of the results."""
    out = None if config.out is None else Path(config.out).expanduser()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"out={config.out} is a file; type out=FOLDER")
    if config.model is None:
        from curate.run import folder
        from finetune.config import refuse_damaged

        folder.settle(config.run, folder.TRAINED, "sample")
        folder.refuse_unknown(config.run.folder, folder.TRAINED)
        if not (config.run.folder / "finetune" / "config.yaml").is_file():
            raise FileNotFoundError(
                f"{config.run.folder} holds no fine-tuning; type first: {COMMANDS['train']} "
                f"{next_arguments(config.run.folder)}, or model=starter out=FOLDER to draw from a base model"
            )
        refuse_damaged(config.run.folder)
        return out or config.run.folder / "evaluate" / "sample"
    from finetune.models import refuse_unsupported

    if config.run.name is not None:
        raise UserError(
            f"run.name={config.run.name} and model= exclude each other: a run has its base model already, which "
            "checkpoints=base draws from. Remove one of them"
        )
    if out is None:
        raise UserError(
            "model= draws from a base model without a run; type out=FOLDER for its pictures"
        )
    refuse_unsupported(config.model)
    return out


def _settle_clip(config: SampleConfig) -> None:
    """Find the CLIP that chooses among several pictures, if one does."""
    from curate.run import devices
    from evaluate import judging_clip

    if config.best_of == 1:
        if config.clip.name != judging_clip.CURATION:
            raise UserError(
                f"clip.name={config.clip.name} chooses among the pictures of best_of, and best_of is 1; type "
                "best_of=4, or remove clip"
            )
        return
    devices.refuse_absent("clip.device", config.clip.device)
    if config.model is not None and config.clip.name == judging_clip.CURATION:
        raise UserError(
            f"best_of={config.best_of} needs a CLIP, and model= has no curation that names one. {_INSTEAD}"
        )
    config.clip = judging_clip.settle(
        config.clip, config.run.folder if config.run.name else Path(), True, _INSTEAD
    )


def run() -> None:
    """Refuse keys of a model where none was chosen, which Hydra cannot set, then start.

    Raises:
        UserError: says what to type.
    """
    keys = [key_of(text) for text in sys.argv[1:] if is_override(text)]
    given = [key for key in keys if key.startswith("model.")]
    if given and "model" not in keys:
        raise UserError(
            f"{given[0]} is of a base model, and none was chosen: a run brings its own. Type model=starter (or another "
            "choice) as well to draw from a base model without a run"
        )
    main()


if __name__ == "__main__":
    command.run(run, "sample", start_bare=False)
