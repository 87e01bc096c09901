"""Exported folders, loaded back by open_clip and diffusers from another working directory."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline

from workflows.starter import architecture
from workflows.starter import export as starter_export
from workflows.starter import unet as starter_unet
from workflows.starter import vae as starter_vae
from workflows.starter.text import convert_text_tower


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    torch.manual_seed(0)
    return architecture.build_clip().eval()


@torch.inference_mode()
def test_open_clip_loads_the_folder_from_anywhere(
    clip: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clip"
    starter_export.export_clip(clip, architecture.CONFIG, folder)
    monkeypatch.chdir("/")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a red heart"])
    assert tokens.shape == (1, 32)
    assert tokens[0, 0] == 4608
    expected = clip.encode_text(tokens, normalize=True)  # type: ignore[operator]
    assert torch.allclose(model.encode_text(tokens, normalize=True), expected, atol=2e-3)
    grey = torch.full((1, 3, 64, 64), 0.5)
    normalised = preprocess.transforms[-1](grey)  # type: ignore[union-attr]
    assert torch.allclose(normalised, architecture.normalise(grey), atol=1e-6)


@pytest.fixture
def ldm_folder(clip: torch.nn.Module, tmp_path: Path) -> Path:
    folder = tmp_path / "ldm"
    folder.mkdir()
    (folder / "README.md").write_text("card")
    export_ldm(clip, folder)
    return folder


def export_ldm(clip: torch.nn.Module, folder: Path) -> None:
    torch.manual_seed(0)
    vae = starter_vae.build_vae()
    vae.register_to_config(scaling_factor=0.5)  # type: ignore[operator]
    text_encoder = convert_text_tower(clip.text)  # type: ignore[arg-type]
    unet = starter_unet.build_unet()
    starter_export.export_pipeline(unet, vae, text_encoder, starter_unet.SCHEDULER, folder)


def test_diffusers_draws_with_the_folder(ldm_folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(ldm_folder)  # as a user would, all in fp32
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    drawn = pipeline("red heart", num_inference_steps=2, generator=generator).images
    assert drawn[0].size == (64, 64)
    assert pipeline.vae.config.scaling_factor == 0.5
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.text_encoder.config.eos_token_id == 4609


def test_the_folder_is_half_precision_keeps_its_card_and_names_no_path(ldm_folder: Path) -> None:
    assert (ldm_folder / "README.md").read_text() == "card"
    weights = sum(path.stat().st_size for path in ldm_folder.rglob("*.safetensors"))
    assert weights < 28 * 2**20
    for path in ldm_folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert "_name_or_path" not in content
        assert str(ldm_folder.parent) not in path.read_text(encoding="utf-8")


def test_an_export_interrupted_between_its_renames_is_repaired(
    clip: torch.nn.Module, ldm_folder: Path
) -> None:
    """The old folder, with the card, was renamed; the new one is not in place yet."""
    ldm_folder.rename(ldm_folder.with_name(".ldm.old"))
    export_ldm(clip, ldm_folder)
    assert (ldm_folder / "README.md").read_text() == "card"
    assert [path.name for path in ldm_folder.parent.iterdir()] == ["ldm"]
