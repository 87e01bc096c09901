"""Pipelines in one file: every key and value there and back, by diffusers' own reader and without the hub."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders import single_file_utils as theirs
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor
from finetune import export as exports
from finetune.methods.full import SINGLE_FILE, Full
from finetune.models import load_model, refuse_unsupported, sdxl
from finetune.models.config import ModelConfig
from finetune.models.original import families, header, layout, reader, writer
from finetune.models.original.families import FAMILIES, SD1, SD2, SDXL
from finetune.models.original.header import Header, read_header
from tests.finetune.conftest import losses
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]


class Whole:
    """The weights of a family's pipeline in their true sizes, without values."""

    def __init__(self, family):
        with init_empty_weights():
            self.unet = UNet2DConditionModel.from_config(family.unet)
            self.vae = AutoencoderKL.from_config(family.vae)
            for part, text in family.texts.items():
                kind = {"CLIPTextModel": CLIPTextModel}.get(
                    text["architectures"][0], CLIPTextModelWithProjection
                )
                settings = {name: v for name, v in text.items() if name != "architectures"}
                setattr(self, part, kind(CLIPTextConfig(**settings)))


def shapes(weights) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): tuple(w.shape) for name, w in weights.items()}


# Parameters as the published files have them: U-Net, VAE, and the text encoders (SD2's without its last layer).
SIZES = {
    SD1: (859_520_964, 83_653_863, [123_060_480]),
    SD2: (865_910_724, 83_653_863, [340_387_840]),
    SDXL: (2_567_463_684, 83_653_863, [123_060_480, 694_659_840]),
}


def blocks_of_latent_diffusion(attends: list[bool], layers: int) -> dict[str, str]:
    """What is at each place of CompVis' UNetModel, as its constructor puts it together (openaimodel.py).

    Args:
        attends: whether each level has attention, the finest first. layers: residual blocks of a level.
    """
    found, number = {"input_blocks.0.0": "conv"}, 1
    for level, attention in enumerate(attends):
        for _ in range(layers):
            found[f"input_blocks.{number}.0"] = "residual"
            if attention:
                found[f"input_blocks.{number}.1"] = "attention"
            number += 1
        if level < len(attends) - 1:
            found[f"input_blocks.{number}.0"] = "down"
            number += 1
    found |= {
        "middle_block.0": "residual",
        "middle_block.1": "attention",
        "middle_block.2": "residual",
    }
    number = 0
    for level, attention in reversed(list(enumerate(attends))):
        for layer in range(layers + 1):
            parts = ["residual", *(["attention"] if attention else [])]
            parts += ["up"] if level and layer == layers else []
            found |= {f"output_blocks.{number}.{i}": part for i, part in enumerate(parts)}
            number += 1
    return found


def blocks_of_file(names) -> dict[str, str]:
    """The same of a file, by what the parts of each are called."""
    kinds = {"in_layers": "residual", "transformer_blocks": "attention", "op": "down", "conv": "up"}
    found = {"input_blocks.0.0": "conv"}
    for name in names:
        at = re.fullmatch(
            r"model\.diffusion_model\.((?:in|out)put_blocks\.\d+\.\d+|middle_block\.\d+)\.(\w+)\..*",
            name,
        )
        if at and at[2] in kinds:
            found[at[1]] = kinds[at[2]]
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_true_sizes_are_read_back_by_diffusers_key_by_key(family):
    whole = Whole(family)
    parameters = [
        sum(w.numel() for w in part.parameters())
        for part in (whole.unet, whole.vae, *(getattr(whole, name) for name in family.texts))
    ]
    unet, vae, texts = SIZES[family]
    assert parameters == [unet, vae, *texts]
    file = writer.original(whole, family)
    attends = [kind == "CrossAttnDownBlock2D" for kind in family.unet["down_block_types"]]
    assert blocks_of_file(file) == blocks_of_latent_diffusion(attends, layers=2)
    assert shapes(theirs.convert_ldm_unet_checkpoint(dict(file), whole.unet.config)) == shapes(
        whole.unet.state_dict()
    )
    assert shapes(theirs.convert_ldm_vae_checkpoint(dict(file), whole.vae.config)) == shapes(
        whole.vae.state_dict()
    )
    assert (
        theirs.infer_diffusers_model_type(file) == {SD1: "v1", SD2: "v2", SDXL: "xl_base"}[family]
    )
    if family is not SD2:
        prefix = layout.CLIP if family is SD1 else layout.XL_CLIP
        first = {n.removeprefix(prefix): w for n, w in file.items() if n.startswith(prefix)}
        positions = first.pop("text_model.embeddings.position_ids")
        assert positions.tolist() == [list(range(77))]
        assert shapes(first) == shapes(whole.text_encoder.state_dict())
    if family is not SD1:
        prefix = layout.OPEN_CLIP if family is SD2 else layout.XL_OPEN_CLIP
        encoder = whole.text_encoder if family is SD2 else whole.text_encoder_2
        read = theirs.convert_open_clip_checkpoint(encoder, dict(file), prefix)
        assert shapes(read) == shapes(encoder.state_dict())
        # OpenCLIP's own text encoder, built whole, has the same keys and shapes.
        name = {SD2: "ViT-H-14", SDXL: "ViT-bigG-14"}[family]
        with init_empty_weights():
            clip = open_clip.model.CustomTextCLIP(
                **{k: v for k, v in open_clip.get_model_config(name).items() if k != "custom_text"}
            )
        own = {n: tuple(w.shape) for n, w in clip.text.state_dict().items() if n != "attn_mask"}
        ours = {
            n.removeprefix(prefix): tuple(w.shape) for n, w in file.items() if n.startswith(prefix)
        }
        assert ours.pop("logit_scale") == ()
        assert ours == own


def test_the_published_vocabulary_is_open_clips():
    """Another implementation of the same tokenizer, from the same list, gives the same numbers."""
    ours, other = reader.tokenizer("<|endoftext|>"), open_clip.get_tokenizer("ViT-B-32")
    texts = [
        "a photo of a cat",
        "Ünïcode, 東京; 1,234 don't!",
        "",
        "é" * 90,
        "a  b\n c",
        "🙂 emoji",
    ]
    for text in texts:
        expected = other([text])[0]
        got = ours(text, padding="max_length", max_length=77, truncation=True).input_ids
        last = expected.tolist().index(49407)
        assert got[: last + 1] == expected[: last + 1].tolist(), text
    assert len(ours) == 49408
    assert ours.pad_token_id == 49407
    padded = reader.tokenizer("!")("a", padding="max_length", max_length=4)
    assert padded.input_ids == [49406, 320, 49407, 0]


def settings_of(pipeline_dir: Path) -> dict:
    return json.loads((pipeline_dir / "unet" / "config.json").read_bytes())


@pytest.fixture
def tiny(monkeypatch):
    """Makes a tiny pipeline pass for one of a family."""

    def known(family, folder: Path):
        names = ("block_out_channels", "addition_embed_type")
        found = replace(family, unet={name: settings_of(folder).get(name) for name in names})
        monkeypatch.setattr(families, "FAMILIES", (found,))
        for name in ("SD1", "SD2", "SDXL"):
            if getattr(families, name) is family:
                monkeypatch.setattr(writer, name, found)
        return found

    return known


def weights(model) -> dict[str, torch.Tensor]:
    pipe = model.pipeline()
    parts = {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
    return {f"{part}.{n}": w for part, m in parts.items() for n, w in m.state_dict().items()}


@pytest.fixture
def attending(pipeline_dir, tmp_path):
    """The tiny pipeline of Stable Diffusion 1, or 2 in what tells them apart, whose VAE attends."""

    def make(linear: bool) -> Path:
        folder = tmp_path / f"attending-{linear}"
        pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
        torch.manual_seed(5)
        pipe.unet = UNet2DConditionModel.from_config(
            {**pipe.unet.config, "use_linear_projection": linear}
        )
        pipe.save_pretrained(folder)
        return folder

    return make


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("family", [SD1, SD2], ids=lambda family: family.name)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_export_of_stable_diffusion_is_read_back_by_value(
    attending, tmp_path, tiny, family, precision
):
    folder = attending(family is SD2)
    tiny(family, folder)
    config = ModelConfig(path=str(folder), resolution=16)
    model = load_model(config)
    method = Full(original_layout=precision)
    exports.export(method, config, model, tmp_path / "export")
    file = tmp_path / "export" / SINGLE_FILE
    with safe_open(file, framework="pt") as stored:
        said = stored.metadata()
        assert stored.get_slice("model.diffusion_model.out.2.weight").get_dtype() == {
            "fp16": "F16", "fp32": "F32"
        }[precision]  # fmt: skip
    assert said["modelspec.prediction_type"] == "v"
    again = ModelConfig(path=str(file), resolution=16, config=str(folder))
    refuse_unsupported(again)
    read, ours = weights(load_model(again)), weights(model)
    assert read.keys() == ours.keys()
    for name, weight in ours.items():
        expected = weight.half().float() if precision == "fp16" else weight
        assert torch.equal(read[name], expected), name
    assert load_model(again).schedule.prediction_type == "v_prediction"
    exports.export(method, config, model, tmp_path / "second")
    assert (tmp_path / "second" / SINGLE_FILE).read_bytes() == file.read_bytes()
    exports.export(method, config, model, tmp_path / "second", name="mine", trigger="ohwx")
    with safe_open(tmp_path / "second" / SINGLE_FILE, framework="pt") as stored:
        assert stored.metadata() == said | {"modelspec.trigger_phrase": "ohwx"}


def test_an_export_of_sdxl_is_read_back_by_value(xl_dir, tmp_path, tiny):
    tiny(SDXL, xl_dir)
    config = ModelConfig(path=str(xl_dir), resolution=32)
    model = load_model(config)
    exports.export(Full(), config, model, tmp_path / "export")
    file = tmp_path / "export" / SINGLE_FILE
    again = ModelConfig(path=str(file), resolution=32, config=str(xl_dir))
    loaded = load_model(again)
    assert isinstance(loaded, sdxl.StableDiffusionXL)
    read, ours = weights(loaded), weights(model)
    assert read.keys() == ours.keys()
    assert all(torch.equal(read[name], weight.half().float()) for name, weight in ours.items())
    # the projection is not square: its direction shows
    projection = load_file(file)["conditioner.embedders.1.model.text_projection"]
    assert projection.shape == (8, 12)
    pipe = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(xl_dir), local_files_only=True
    )
    assert torch.equal(pipe.text_encoder_2.text_projection.weight.float(), projection.T.float())


def test_sdxl_says_in_its_file_that_it_predicts_v(xl_dir, tmp_path, tiny):
    tiny(SDXL, xl_dir)
    config = ModelConfig(path=str(xl_dir), resolution=32, prediction_type="v_prediction")
    exports.export(Full(), config, load_model(config), tmp_path / "export")
    file = tmp_path / "export" / SINGLE_FILE
    assert "v_pred" in load_file(file)
    assert read_header(file, "x").prediction_type == "v_prediction"
    config.prediction_type = "sample"  # which no other program draws with
    exports.export(Full(), config, load_model(config), tmp_path / "sample")
    assert not (tmp_path / "sample" / SINGLE_FILE).exists()


def test_an_unknown_architecture_has_no_single_file(pipeline_dir, tmp_path):
    config = ModelConfig(path=str(pipeline_dir), resolution=16)
    exports.export(Full(), config, load_model(config), tmp_path / "export")
    assert not (tmp_path / "export" / SINGLE_FILE).exists()
    for family in FAMILIES:
        assert (
            families.family_of(UNet2DConditionModel.load_config(_written(family, tmp_path)))
            is family
        )


def _written(family, tmp_path) -> Path:
    folder = tmp_path / family.name
    folder.mkdir()
    reader.write_settings(folder, Header(family, "epsilon", False), None)
    return folder / "unet"


def test_a_file_that_does_not_hold_what_is_in_memory_is_left_out(
    attending, tmp_path, tiny, monkeypatch, capsys
):
    folder = attending(False)
    tiny(SD1, folder)
    config = ModelConfig(path=str(folder), resolution=16)
    real = writer.original

    def wrong(pipeline, family):
        found = real(pipeline, family)
        name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
        return found | {name: found[name] + 0.01}

    monkeypatch.setattr(writer, "original", wrong)
    exports.export(Full(), config, load_model(config), tmp_path / "export")
    assert "1 weights, such as unet.down_blocks.0" in capsys.readouterr().err
    assert not (tmp_path / "export" / "original.safetensors").exists()
    assert (tmp_path / "export" / "model_index.json").is_file()

    def huge(pipeline, family):
        found = real(pipeline, family)
        return found | {"first_stage_model.quant_conv.bias": torch.full((8,), 1e6)}

    monkeypatch.setattr(writer, "original", huge)
    exports.export(Full(), config, load_model(config), tmp_path / "export")
    said = capsys.readouterr().err
    assert "beyond" in said
    assert "method.original_layout=fp32 would hold it" in said


def test_the_settings_of_a_published_family_are_written_without_the_hub(tmp_path):
    """All of a pipeline but the weights is there; of a file without a word on it, SD2's prediction is asked for."""
    for family in FAMILIES:
        folder = tmp_path / family.name
        folder.mkdir()
        reader.write_settings(folder, Header(family, None, family is SDXL), "v_prediction")
        kind = StableDiffusionXLPipeline if family is SDXL else StableDiffusionPipeline
        index = kind.load_config(folder)
        for part in family.texts:
            assert (folder / part / "config.json").is_file()
            assert part.replace("text_encoder", "tokenizer") in index
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_bytes())
        assert scheduler["prediction_type"] == "v_prediction"
        assert scheduler.get("rescale_betas_zero_snr", False) == (family is SDXL)


def narrow(family, tmp_path, monkeypatch):
    """A family with fewer channels in every layer, in place of the published one, and random weights of it."""
    texts = {}
    for width, (part, text) in zip((64, 80), family.texts.items(), strict=False):
        sizes = {"hidden_size": width, "intermediate_size": 64, "projection_dim": 48}
        texts[part] = text | sizes | {"num_attention_heads": 2, "num_hidden_layers": 3}
    unet = family.unet | {
        "block_out_channels": [32 * (1 + i) for i in range(len(family.unet["block_out_channels"]))],
        "cross_attention_dim": sum(text["hidden_size"] for text in texts.values()),
        "attention_head_dim": 4,
    }
    if family is SDXL:
        unet["projection_class_embeddings_input_dim"] = 6 * 256 + 48
    vae = family.vae | {"block_out_channels": [32, 32, 32, 32]}
    found = replace(family, unet=unet, vae=vae, texts=texts)
    for module, name in ((families, "FAMILIES"), (header, "_TEXTS")):
        known = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            {n: found if f is family else f for n, f in known.items()}
            if isinstance(known, dict)
            else (found,),
        )
    for name in ("SD1", "SD2", "SDXL"):
        if getattr(writer, name) is family:
            monkeypatch.setattr(writer, name, found)
    folder = tmp_path / "settings"
    folder.mkdir()
    reader.write_settings(folder, Header(found, "epsilon", False), None)
    torch.manual_seed(0)
    parts = {
        "unet": UNet2DConditionModel.from_config(found.unet),
        "vae": AutoencoderKL.from_config(found.vae),
        "scheduler": DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    }
    for part, text in texts.items():
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        parts[part] = kind(CLIPTextConfig(**text))
        name = part.replace("text_encoder", "tokenizer")
        parts[name] = CLIPTokenizer.from_pretrained(folder, subfolder=name)
    if family is SDXL:
        return found, StableDiffusionXLPipeline(**parts, add_watermarker=False)
    options = dict.fromkeys(("safety_checker", "feature_extractor"))
    return found, StableDiffusionPipeline(**parts, **options, requires_safety_checker=False)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@torch.no_grad()
def test_a_file_alone_is_a_pipeline(tmp_path, monkeypatch, family):
    """Settings, vocabulary and scheduler come from here; values, texts and predictions are the pipeline's."""
    found, pipe = narrow(family, tmp_path, monkeypatch)
    path = tmp_path / "alone.safetensors"
    writer.write(path, pipe, found, found.side("epsilon"), torch.float32)
    config = ModelConfig(path=str(path), resolution=512, prediction_type="epsilon")
    refuse_unsupported(config)
    model = load_model(config)
    assert isinstance(model, sdxl.StableDiffusionXL) == (family is SDXL)
    ours = weights(model)
    parts = {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
    theirs = {f"{part}.{n}": w for part, m in parts.items() for n, w in m.state_dict().items()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    for module in parts.values():
        module.eval()
    hidden, _, *pooled = pipe.encode_prompt(
        ["a photo, of 2 cats"],
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    captions = model.encode_captions(["a photo, of 2 cats"])
    torch.testing.assert_close(captions["hidden"], hidden)
    assert captions["hidden"].shape == (1, 77, found.unet["cross_attention_dim"])
    if family is SDXL:
        torch.testing.assert_close(captions["pooled"], pooled[0])
    else:
        noisy, t = torch.ones(1, 4, 8, 8), torch.tensor([5])
        torch.testing.assert_close(
            model.predict(model.unet, noisy, t, captions), pipe.unet(noisy, t, hidden).sample
        )
    assert model.unet.config["sample_size"] == {SDXL: 128}.get(
        family, 64
    )  # of what is drawn by default
    assert model.vae.config["scaling_factor"] == {SDXL: 0.13025}.get(family, 0.18215)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(
        model.schedule.alphas.double(), (1 - betas).cumprod(0).sqrt(), atol=1e-6, rtol=0
    )


def small(tmp_path, name="x", metadata=None, **tensors) -> ModelConfig:
    """A file with the keys that tell a pipeline, and one value each."""
    found = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 1, 1),
        "first_stage_model.quant_conv.bias": torch.zeros(1),
        "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.zeros(1),
    } | tensors
    path = tmp_path / f"{name}.safetensors"
    save_file({n: t for n, t in found.items() if t is not None}, path, metadata)
    return ModelConfig(path=str(path), resolution=512)


SD2_TEXT = {
    "cond_stage_model.transformer.text_model.final_layer_norm.bias": None,
    "cond_stage_model.model.ln_final.bias": torch.zeros(1),
}


def test_the_header_tells_the_pipeline_and_what_it_predicts(tmp_path):
    def told(**changes):
        return read_header(Path(small(tmp_path, **changes).path), "x")

    assert told() == Header(SD1, "epsilon", False)
    assert told(metadata={"modelspec.prediction_type": "v"}).prediction_type == "v_prediction"
    assert told(**SD2_TEXT) == Header(SD2, None, False)
    xl = {"conditioner.embedders.1.model.ln_final.bias": torch.zeros(1)}
    assert told(**xl) == Header(SDXL, "epsilon", False)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    assert told(**xl, **marks) == Header(SDXL, "v_prediction", True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 9, 1, 1)},
            "9 input channels",
        ),
        ({"first_stage_model.quant_conv.bias": None}, "has no VAE under"),
        ({"model.diffusion_model.input_blocks.0.0.weight": None}, "has no U-Net under"),
        ({"lora_unet_x.lora_down.weight": torch.zeros(1)}, "is a LoRA"),
        ({"edm_mean": torch.zeros(1)}, "continuous noise levels"),
        (
            SD2_TEXT,
            r"Type model\.prediction_type=v_prediction",
        ),
    ],
)
def test_files_that_cannot_be_trained_are_refused_by_their_header(tmp_path, changes, said):
    config = small(tmp_path, **changes)
    for check in (refuse_unsupported, load_model):
        with pytest.raises(UserError, match=said):
            check(config)


def test_a_resolution_that_belongs_to_another_model_is_refused(tmp_path):
    """model.path= alone leaves the built-in model's 64 px."""
    config = small(tmp_path)
    config.resolution = 64
    with pytest.raises(UserError, match=r"trained on 512 px\. Type model\.resolution=512"):
        refuse_unsupported(config)
    config = small(tmp_path, metadata={"modelspec.prediction_type": "v"}, **SD2_TEXT)
    config.resolution = 128
    with pytest.raises(UserError, match=r"Type model\.resolution=768"):
        refuse_unsupported(config)
    config.resolution = 256
    refuse_unsupported(config)


def test_a_file_that_lacks_weights_is_refused(attending, tmp_path, tiny):
    folder = attending(False)
    tiny(SD1, folder)
    config = ModelConfig(path=str(folder), resolution=16)
    exports.export(Full(), config, load_model(config), tmp_path / "export")
    for name, said in (
        ("model.diffusion_model.middle_block.1.proj_in.weight", "weights are missing"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            r"lacks 1 weights of the text_encoder, such as final_layer_norm\.bias",
        ),
    ):
        found = load_file(tmp_path / "export" / SINGLE_FILE)
        del found[name]
        save_file(found, tmp_path / "less.safetensors")
        less = str(tmp_path / "less.safetensors")
        config = ModelConfig(path=less, resolution=16, config=str(folder))
        with pytest.raises(UserError, match=said):
            load_model(config)
    # the published settings are not this file's
    config.config, config.resolution = None, 512
    config.prediction_type = "epsilon"
    with pytest.raises(UserError, match=r"type model\.config=FOLDER"):
        load_model(config)


def test_paths_that_are_no_files_are_said(tmp_path, pipeline_dir):
    (tmp_path / "x.ckpt").write_bytes(b"\x80")
    (tmp_path / "y.safetensors").write_bytes(b"no")
    for name, said in (("x.ckpt", "are programs"), ("y.safetensors", "cannot be read")):
        with pytest.raises(UserError, match=said):
            refuse_unsupported(ModelConfig(path=str(tmp_path / name), resolution=16))
    with pytest.raises(UserError, match=r"remove model\.config"):
        refuse_unsupported(ModelConfig(str(pipeline_dir), resolution=16, config="x"))
    config = small(tmp_path)
    config.config = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"model\.config=.*is no folder with a model_index\.json"):
        refuse_unsupported(config)


def test_a_training_goes_on_from_a_single_file(
    make_config, run_training, attending, tmp_path, tiny
):
    """The same weights as from the folder, so the same losses; the export is whole again."""
    folder = attending(False)
    tiny(SD1, folder)
    config = ModelConfig(path=str(folder), resolution=16)
    exports.export(Full(original_layout="fp32"), config, load_model(config), tmp_path / "one")
    shutil.move(tmp_path / "one" / SINGLE_FILE, tmp_path / "base.safetensors")
    plain = make_config("plain", **{"model.path": str(folder), "train.samples": 16})
    run_training(plain)
    single = make_config(
        "single",
        **{
            "model.path": str(tmp_path / "base.safetensors"),
            "model.config": str(folder),
            "train.samples": 16,
        },
    )
    run_training(single)
    # An export in another layout would not change what was trained.
    assert (
        not {"method.original_layout", "model.config"}
        & doctor.identity(single, read_manifest(single.curate_dir)).keys()
    )
    assert losses(single) == losses(plain)
    for name in ("model_index.json", SINGLE_FILE):
        assert (single.folder / "export" / name).is_file()
    assert (single.folder / "export" / SINGLE_FILE).read_bytes() == (
        plain.folder / "export" / SINGLE_FILE
    ).read_bytes()
