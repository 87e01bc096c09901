"""Which pipelines are accepted, and how often a model's weights are hashed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor
from finetune.cache import encode_shards, load_split
from finetune.models import load_model, refuse_unsupported, sd
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run


@pytest.fixture
def named(pipeline_dir, tmp_path):
    """A factory of pipelines whose index names a class, or none, and may list other parts."""

    def make(name, **parts) -> ModelConfig:
        folder = tmp_path / "named"
        shutil.copytree(pipeline_dir, folder, dirs_exist_ok=True)
        index = json.loads((pipeline_dir / "model_index.json").read_bytes())
        index.pop("_class_name")
        index |= parts | ({"_class_name": name} if name else {})
        (folder / "model_index.json").write_text(json.dumps(index))
        return ModelConfig(path=str(folder), resolution=16)

    return make


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionSAGPipeline",
        "LatentConsistencyModelPipeline",
    ],
)
def test_pipelines_of_stable_diffusions_parts_are_loaded(named, name):
    config = named(name, tokenizer_2=[None, None], image_encoder=[None, None])
    refuse_unsupported(config)
    assert isinstance(load_model(config), sd.StableDiffusion)


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        (
            "StableDiffusionXLPipeline",
            {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
            "StableDiffusionXLPipeline",
        ),
        ("IFPipeline", {"text_encoder": ["transformers", "T5EncoderModel"]}, "IFPipeline"),
        (
            "AnimateDiffPipeline",
            {"motion_adapter": ["diffusers", "MotionAdapter"]},
            "AnimateDiffPipeline",
        ),
        ("KandinskyPipeline", {"vae": [None, None]}, "KandinskyPipeline"),
        (["pipeline", "MyPipeline"], {}, "MyPipeline"),
        (None, {}, "of no named class"),
    ],
)
def test_other_parts_are_refused_by_name_before_anything_is_loaded(
    make_config, named, name, parts, said
):
    config = make_config()
    config.model = named(name, **parts)
    manifest = read_manifest(config.run.folder / "curate")
    with pytest.raises(UserError, match=rf"{said}.*unet UNet2DConditionModel.*model=") as refused:
        doctor.examine(config, manifest)
    assert "Inpaint" not in str(refused.value)  # their U-Nets cannot be trained
    with pytest.raises(UserError, match=said):
        load_model(config.model)


def test_a_hub_repository_is_checked_by_its_index_alone(monkeypatch, tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    config = ModelConfig(path="owner/name", resolution=16, revision="main")
    asked = []

    def download(location, name, revision):
        asked.append((location, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr("curate.run.hub.is_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for check in (refuse_unsupported, load_model):
        with pytest.raises(UserError, match="owner/name is a FluxPipeline, which is not supported"):
            check(config)
    assert asked == [("owner/name", "model_index.json", "main")] * 2


def test_a_hub_that_does_not_answer_is_said_in_one_paragraph():
    for check in (refuse_unsupported, load_model):
        with pytest.raises(UserError, match=r"owner/name could not be loaded.*model\.path=FOLDER"):
            check(ModelConfig(path="owner/name", resolution=16))


@pytest.mark.parametrize(
    ("content", "said"), [("{", "cannot be read"), ('[["a", 1]]', "holds no JSON object")]
)
def test_an_index_that_is_no_json_object_is_refused(named, content, said):
    config = named(None)
    (Path(config.path) / "model_index.json").write_text(content)
    with pytest.raises(UserError, match=rf"model_index\.json {said}"):
        refuse_unsupported(config)


def test_weights_are_hashed_once_however_often_they_are_asked_for(
    make_config, run_training, monkeypatch
):
    config = make_config(method="lora")
    run_training(config)
    hashed = []
    real = sd.hash_weights

    def counted(module, *digests):
        hashed.append(type(module).__name__)
        real(module, *digests)

    monkeypatch.setattr(sd, "hash_weights", counted)
    run = load_run(config.run.folder)
    model = run.model()
    prints = {model.fingerprint() for _ in range(3)}
    for split in ("val", "train", "val"):
        run.items(split, 4)
    assert sorted(hashed) == ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"]
    assert prints == {run.checkpoints()[-1].state()["identity"]["weights"]}


def fingerprints(model):
    return model.fingerprint(), model.image_fingerprint(), model.caption_fingerprint()


def test_the_fingerprint_stays_that_of_the_base_model(pipeline_dir, tmp_path, random_curation):
    from finetune.methods import prepare
    from finetune.methods.lora import Lora

    curate, _ = random_curation
    curate(tmp_path / "curate", {"train": 4})
    shards = read_manifest(tmp_path / "curate").shards_of("train")
    config = ModelConfig(path=str(pipeline_dir), resolution=16)
    model = load_model(config)
    before = fingerprints(model)
    prepare(model.unet, Lora(rank=2), seed=0)
    encode_shards(model, tmp_path / "curate", shards, tmp_path / "cache", progress=False)
    load_split(model, shards, tmp_path / "cache")
    assert fingerprints(model) == before
    fresh = load_model(config)
    assert fingerprints(fresh) == before


def test_a_part_from_another_library_is_not_imported(named, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('foreign code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    for part in ("unet", "scheduler"):
        config = named("StableDiffusionPipeline", **{part: ["evil", "UNet2DConditionModel"]})
        for refuse in (refuse_unsupported, load_model):
            with pytest.raises(UserError, match=rf"the part '{part}' from 'evil'"):
                refuse(config)


def test_settings_that_run_code_are_refused(named):
    config = named("StableDiffusionPipeline")
    path = Path(config.path) / "text_encoder" / "config.json"
    content = json.loads(path.read_bytes()) | {"auto_map": {"AutoModel": "evil.Model"}}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"text_encoder.config.json sets 'auto_map'"):
        refuse_unsupported(config)


def test_pickled_weights_are_refused_and_those_beside_safetensors_stay_shut(named):
    config = named("StableDiffusionPipeline")
    folder = Path(config.path) / "unet"
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"not read")
    refuse_unsupported(config)
    load_model(config)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    for refuse in (refuse_unsupported, load_model):
        with pytest.raises(UserError, match=r"safetensors"):
            refuse(config)
