"""The command that rebuilds the built-in models: `python -m workflows.starter`.

Stages: `meaning`, `clip`, `image`, `vae`, `unet`, `export`, `measure`, or `all` of them in that order.
Each continues where it was cut; the same command again resumes. Work files stay in `--work-dir`; `export` writes the
finished weights into the packages, and `measure` prints the figures of what lies there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.command import UserError, exit_codes
from curate.files import sha256_of

if TYPE_CHECKING:
    import torch

    from workflows.starter.emoji_sets import Pictures
    from workflows.starter.meaning import Lesson

CHECKPOINT = "checkpoint.safetensors"
PICTURE_SIZE_PX = 64


class Workshop:
    """The work folder: pictures, tokenizer, and the models trained so far.

    Attributes:
        used: sha256 of each file that has been read from it, by name; what is trained next stands on them.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from workflows.starter.tokenizer import load_tokenizer

        self.folder = folder
        self.device = device
        self.tokenizer = load_tokenizer(folder / "tokenizer")
        self.used: dict[str, str] = {}

    def _sha256(self, name: str) -> str:
        path = self.folder / name
        return sha256_of(path) if path.exists() else ""

    def _use(self, name: str) -> None:
        self.used[name] = self._sha256(name)

    def pictures(self, size_px: int = PICTURE_SIZE_PX) -> tuple[Pictures, Pictures]:
        """Training pictures and OpenMoji's, rendered on the first call."""
        from workflows.starter.emoji_sets import cache_name, load_pictures

        loaded = load_pictures(self.folder, size_px)
        self._use(cache_name("train", size_px))
        return loaded

    def lesson(self) -> Lesson:
        """What words and the names of the seen concepts mean; computed on the first call."""
        from workflows.starter.meaning import Lesson
        from workflows.starter.pretrained import MEANINGS, meanings

        pictures, _ = self.pictures()
        names = pictures.select(pictures.seen()).names()
        found = meanings(names, self.folder)
        self._use(MEANINGS)
        return Lesson(found, self.tokenizer, self.device)

    def trained_clip(self) -> Any:
        """The CLIP without what only its training needs."""
        from workflows.starter.architecture import build_student

        clip = self.trained("image", build_student)
        del clip.probe
        return clip

    def trained(self, stage: str, build: Callable[[], Any]) -> Any:
        """The averaged weights of a stage's last checkpoint, for inference.

        Raises:
            UserError: the stage has not been run, or what it stands on has changed since.
        """
        from workflows.starter.loop import check_same, load_ema, stands_on

        checkpoint = self.folder / stage / CHECKPOINT
        if not checkpoint.exists():
            raise UserError(
                f"{checkpoint} is missing; run `python -m workflows.starter {stage} "
                f"--work-dir {self.folder}` first"
            )
        check_same(checkpoint, {name: self._sha256(name) for name in stands_on(checkpoint)})
        model = build()
        load_ema(model, checkpoint)
        self._use(f"{stage}/{CHECKPOINT}")
        return model.eval().requires_grad_(False).to(self.device)


def train_meaning(shop: Workshop) -> None:
    """Teach the text tower what words mean."""
    from workflows.starter.loop import train
    from workflows.starter.meaning import RECIPE, MeaningTask

    train(MeaningTask(shop.lesson(), shop.device), RECIPE, shop.folder / "meaning", shop.used)


def train_clip(shop: Workshop) -> None:
    """Train the CLIP from the text tower of the stage before and an image tower that knows photographs."""
    from workflows.starter.architecture import build_student
    from workflows.starter.clip import RECIPE, ClipTask
    from workflows.starter.loop import train
    from workflows.starter.pretrained import load_trunk

    student = shop.trained("meaning", build_student).requires_grad_(True)
    load_trunk(student.visual.trunk, shop.folder)
    task = ClipTask(*shop.pictures(), shop.lesson(), student, shop.tokenizer, shop.device)
    train(task, RECIPE, shop.folder / "clip", shop.used)


def train_image_tower(shop: Workshop) -> None:
    """Train the CLIP's image tower on at its full size."""
    from workflows.starter.architecture import IMAGE_SIZE_PX, build_student
    from workflows.starter.image_tower import RECIPE, ImageTowerTask
    from workflows.starter.loop import train

    clip = shop.trained("clip", build_student).requires_grad_(True)
    pictures, openmoji = shop.pictures(IMAGE_SIZE_PX)
    task = ImageTowerTask(pictures, openmoji, clip, shop.tokenizer, shop.device)
    train(task, RECIPE, shop.folder / "image", shop.used)


def train_vae(shop: Workshop) -> None:
    """Train the VAE."""
    from workflows.starter.loop import train
    from workflows.starter.vae import RECIPE, VaeTask

    pictures, openmoji = shop.pictures()
    train(VaeTask(pictures, openmoji, shop.device), RECIPE, shop.folder / "vae", shop.used)


def train_unet(shop: Workshop) -> None:
    """Train the U-Net on the VAE's latents and the CLIP's text tower."""
    from workflows.starter.loop import train
    from workflows.starter.text import convert_text_tower
    from workflows.starter.unet import RECIPE, UnetTask
    from workflows.starter.vae import build_vae

    vae = shop.trained("vae", build_vae)
    text_encoder = convert_text_tower(shop.trained_clip().text).to(shop.device)
    task = UnetTask(shop.pictures()[0], vae, text_encoder, shop.tokenizer, shop.device)
    train(task, RECIPE, shop.folder / "unet", shop.used)


def export(shop: Workshop) -> None:
    """Write the CLIP and the pipeline into the packages."""
    from workflows.starter.architecture import CONFIG
    from workflows.starter.export import export_clip, export_pipeline
    from workflows.starter.text import convert_text_tower
    from workflows.starter.unet import SCHEDULER, build_unet, latent_scale
    from workflows.starter.vae import build_vae

    clip = shop.trained_clip()
    text_encoder = convert_text_tower(clip.text)
    export_clip(clip, CONFIG)
    vae = shop.trained("vae", build_vae)
    vae.register_to_config(scaling_factor=latent_scale(vae, shop.pictures()[0]))
    export_pipeline(shop.trained("unet", build_unet), vae, text_encoder, SCHEDULER)


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


def main() -> None:
    """Run the stages named on the command line."""
    chosen = parse_arguments()
    import torch

    torch.set_num_threads(chosen.threads)
    for stage in STAGES if chosen.stage == "all" else (chosen.stage,):
        STAGES[stage](Workshop(chosen.work_dir, torch.device(chosen.device)))


if __name__ == "__main__":
    with exit_codes():
        main()
