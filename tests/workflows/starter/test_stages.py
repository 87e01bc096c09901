"""All stages in turn, two steps each on synthetic pictures and words, up to the export and its metrics."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from workflows.starter import (
    checkpoint,
    clip,
    emoji_sets,
    export,
    image_tower,
    meaning,
    pretrained,
    unet,
    vae,
    work_folder,
)
from workflows.starter.__main__ import STAGES
from workflows.starter.emoji_sets import Pictures
from workflows.starter.pretrained import SENTENCE_WIDTH, TextEmbeddings
from workflows.starter.work_folder import WorkFolder

CONCEPTS = 60


def _pictures(icon_sets: tuple[str, ...], size_px: int) -> Pictures:
    names = np.array([f"thing {number}" for number in range(CONCEPTS)] * len(icon_sets))
    noise = np.random.default_rng(len(icon_sets)).integers(0, 256, (len(names), 8, 8, 3), np.uint8)
    images = noise.repeat(size_px // 8, axis=1).repeat(size_px // 8, axis=2)
    sets = np.repeat(np.array(icon_sets), CONCEPTS)
    return Pictures(images, names, names, sets, np.array([""] * len(names)))


def _load_pictures(folder: Path, size_px: int) -> tuple[Pictures, Pictures]:
    (folder / emoji_sets.cache_name("train", size_px)).write_text("placeholder")
    return _pictures((unet.SET, "noto"), size_px), _pictures(("openmoji",), size_px)


def _text_embeddings(names: list[list[str]], folder: Path) -> TextEmbeddings:
    (folder / pretrained.EMBEDDINGS_FILE).write_text("placeholder")
    words = [f"word {number}" for number in range(meaning.HELD_OUT_WORDS + 20)]
    texts = np.array(words + sorted({name for some in names for name in some}))
    embeddings = np.random.default_rng(0).standard_normal((len(texts), SENTENCE_WIDTH))
    return TextEmbeddings(texts, embeddings.astype(np.float32), len(words))


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two steps for each stage, no downloads, and exports below the temporary folder."""
    short = {
        stage: replace(recipe, steps=2, batch_size=2, warmup_steps=1, measure_every=2)
        for stage, recipe in work_folder.RECIPES.items()
    }
    monkeypatch.setattr(work_folder, "RECIPES", short)
    modules = {"meaning": meaning, "clip": clip, "image": image_tower, "vae": vae, "unet": unet}
    for stage, module in modules.items():
        monkeypatch.setattr(module, "RECIPE", replace(short[stage], batch_size=8))
    monkeypatch.setattr(unet.UnetTask, "recipe", short["unet"])
    monkeypatch.setattr(unet.PlacedUnetTask, "recipe", short["placed"])
    for name, value in {"PLACEMENTS": 1, "EVAL_DRAWS": 4, "FINAL_EVAL_DRAWS": 20}.items():
        monkeypatch.setattr(unet, name, value)
    monkeypatch.setattr(emoji_sets, "load_pictures", _load_pictures)
    monkeypatch.setattr(pretrained, "load_text_embeddings", _text_embeddings)
    monkeypatch.setattr(pretrained, "load_trunk", lambda trunk, folder: None)
    for kind, folder in (("clip", "CLIP_FOLDER"), ("pipeline", "LDM_FOLDER")):
        target = tmp_path / "exported" / kind
        write = partial(getattr(export, f"export_{kind}"), folder=target)
        monkeypatch.setattr(export, f"export_{kind}", write)
        monkeypatch.setattr(export, folder, target)
    (tmp_path / "exported").mkdir()
    return tmp_path


def _run(folder: Path) -> None:
    for stage in STAGES.values():
        stage(WorkFolder(folder, torch.device("cpu")))


@pytest.mark.slow
def test_the_last_checkpoint_of_each_model_is_exported_and_measured(
    short: Path, capsys: pytest.CaptureFixture
) -> None:
    _run(short)
    printed = capsys.readouterr().out
    metrics = json.loads(printed[printed.rindex("{") :])
    assert {"auc_openmoji_plain", "psnr_openmoji", "loss_unseen", "unseen_pictures"} <= {*metrics}
    assert all(np.isfinite(value) for value in metrics.values())
    for part, stage in (("unet", "placed"), ("vae", "vae")):
        exported = load_file(
            short / "exported/pipeline" / part / "diffusion_pytorch_model.safetensors"
        )
        average = checkpoint.ema_weights(short / stage / checkpoint.NAME)
        assert exported.keys() == average.keys()
        assert all(torch.equal(value, average[name].half()) for name, value in exported.items())
    exported = load_file(short / "exported/clip/open_clip_model.safetensors")
    average = checkpoint.ema_weights(short / "image" / checkpoint.NAME)
    assert {name for name in average if not name.startswith("probe.")} == exported.keys()
    assert all(torch.equal(value, average[name].half()) for name, value in exported.items())
    text = load_file(short / "exported/pipeline/text_encoder/model.safetensors")
    words = next(value for name, value in text.items() if name.endswith("token_embedding.weight"))
    assert torch.equal(words, exported["text.token_embedding.weight"])
    _run(short)
    assert capsys.readouterr().out.count("already trained") == 6
