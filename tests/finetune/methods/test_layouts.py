"""Both files of an adapter, read by the published rules alone: no peft, no loader of diffusers, nothing of Darkroom.

The rules are those of ComfyUI (``comfy/lora.py``, ``comfy/weight_adapter``) and LyCORIS (``lycoris/modules``) for kohya's
layout, and those of peft's documentation for the other. Alpha is never the rank.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from finetune.export import ExportMismatch, export
from finetune.methods import prepare
from finetune.methods.adapters import kohya
from finetune.methods.dora import Dora
from finetune.methods.loha import Loha
from finetune.methods.lokr import Lokr
from finetune.methods.lora import Lora
from finetune.models import load_model
from finetune.models.config import ModelConfig

EVERY = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
EVERY += ["conv1", "conv2"]
METHODS = {
    "lora": Lora(rank=3, alpha=7.5),
    "locon": Lora(rank=2, alpha=0.5, targets=EVERY),
    "dora": Dora(rank=3, alpha=1.0, targets=EVERY),
    "lokr, both whole": Lokr(rank=8, alpha=3.0, targets=EVERY),
    "lokr, one product": Lokr(rank=2, alpha=3.0, factor=2, targets=EVERY),
    "lokr, two products": Lokr(rank=1, alpha=3.0, factor=4, decompose_both=True, targets=EVERY),
    "lokr, cores": Lokr(rank=2, alpha=3.0, factor=2, tucker=True, targets=EVERY),
    "loha": Loha(rank=2, alpha=3.0, targets=EVERY),
    "loha, cores": Loha(rank=2, alpha=3.0, tucker=True, targets=EVERY),
}
NAMES = {  # of the parts of a weight's name that the layout needs for each kind
    "lora": {"lora_down.weight", "lora_up.weight", "alpha"},
    "locon": {"lora_down.weight", "lora_up.weight", "alpha"},
    "dora": {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"},
    "lokr, both whole": {"lokr_w1", "lokr_w2", "alpha"},
    "lokr, one product": {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha"},
    "lokr, two products": {
        *("lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha")
    },
    "lokr, cores": {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha"},
    "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"},
    "loha, cores": {
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha")
    },
}


@pytest.fixture(scope="module", params=["convolutions", "linear projections"])
def base(request, pipeline_dir, tmp_path_factory) -> ModelConfig:
    """A pipeline with the projections of Stable Diffusion 1, or with those of 2."""
    folder = pipeline_dir
    if request.param != "convolutions":
        folder = tmp_path_factory.mktemp("models") / "linear"
        shutil.copytree(pipeline_dir, folder)
        settings = UNet2DConditionModel.load_config(folder / "unet")
        shutil.rmtree(folder / "unet")
        torch.manual_seed(1)
        UNet2DConditionModel.from_config(
            settings, use_linear_projection=True, attention_head_dim=(2, 4)
        ).save_pretrained(folder / "unet")
    return ModelConfig(path=str(folder), resolution=16)


def trained(config: ModelConfig, method, scale: float = 0.2):
    """A model whose trained weights moved away from where they started."""
    model = load_model(config)
    prepare(model.unet, method, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in method.trainable(model.unet).values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return model


@torch.no_grad()
def output(unet, model) -> torch.Tensor:
    text = model.encode_captions(["red bar"])["hidden"]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    return unet(x, torch.tensor([300]), encoder_hidden_states=text).sample


# The readers


def kohya_rules(
    file: Path,
    base_weights: dict,
    *,
    alpha: bool = True,
    of_base: bool = False,
    prefix: str = "lora_unet_",
) -> dict:
    """The base's weights with what a file in kohya's layout adds to the network of a prefix.

    ``alpha=False`` leaves alpha out, and ``of_base`` takes DoRA's norm of the base's weights.
    """
    by_module = _by_module(file, base_weights, prefix)
    merged = dict(base_weights)
    for name, p in by_module.items():
        weight, rank = base_weights[name].double(), None
        if "lora_up.weight" in p:
            rank = p["lora_down.weight"].shape[0]
            difference = torch.mm(
                p["lora_up.weight"].flatten(start_dim=1), p["lora_down.weight"].flatten(start_dim=1)
            )
        elif "hada_t1" in p:
            rank = p["hada_w1_b"].shape[0]
            one, two = (
                torch.einsum(
                    "ijkl,jr,ip->prkl", p[f"hada_t{n}"], p[f"hada_w{n}_b"], p[f"hada_w{n}_a"]
                )
                for n in (1, 2)
            )
            difference = one * two
        elif "hada_w1_a" in p:
            rank = p["hada_w1_b"].shape[0]
            difference = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
        else:
            one, two = p.get("lokr_w1"), p.get("lokr_w2")
            if one is None:
                rank, one = p["lokr_w1_b"].shape[0], p["lokr_w1_a"] @ p["lokr_w1_b"]
            if two is None:
                rank = p["lokr_w2_b"].shape[0]
                a, b = p["lokr_w2_a"], p["lokr_w2_b"]
                core = p.get("lokr_t2")
                two = a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)
            if two.dim() == 4:
                one = one.unsqueeze(2).unsqueeze(2)
            difference = torch.kron(one, two.contiguous())
        scale = p["alpha"].item() / rank if alpha and rank is not None else 1.0
        changed = weight + scale * difference.reshape(weight.shape)
        if (length := p.get("dora_scale")) is not None:
            assert (
                length.shape[0] == weight.shape[0]
            )  # the output axis, as LyCORIS and ComfyUI tell it
            assert length.dim() == weight.dim()
            rows = (weight if of_base else changed).reshape(weight.shape[0], -1)
            changed = changed * (length / rows.norm(dim=1).reshape(length.shape))
        merged[name] = changed.float()
    return merged


def _by_module(file: Path, base_weights: dict, prefix: str) -> dict[str, dict]:
    """The parts of a file in kohya's layout by the name of the base's weight."""
    keys = {
        prefix + name.removesuffix(".weight").replace(".", "_"): name
        for name in base_weights
        if name.endswith(".weight")
    }
    found = defaultdict(dict)
    for name, tensor in load_file(file).items():
        stem, part = name.split(".", 1)
        if stem.startswith(prefix):
            found[keys[stem]][part] = tensor.double()
    return found


def other_rules(folder: Path, base_weights: dict, network: str = "unet") -> dict:
    """The base's weights with what diffusers' file adds, or peft's, to a network."""
    if (folder / "adapter_config.json").is_file() and network != "unet":
        folder = folder / network
    if (folder / "adapter_config.json").is_file():
        settings = json.loads((folder / "adapter_config.json").read_bytes())
        stored = load_file(folder / "adapter_model.safetensors")
        prefix, scale = "base_model.model.", settings["alpha"] / settings["r"]
    else:
        file = folder / "pytorch_lora_weights.safetensors"
        stored = load_file(file)
        with safe_open(file, "pt") as opened:
            (text,) = opened.metadata().values()
        settings = json.loads(text)
        prefix = f"{network}."
        scale = settings[f"{prefix}lora_alpha"] / settings[f"{prefix}r"]
        stored = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
    by_module = defaultdict(dict)
    for name, tensor in stored.items():
        module, part = re.fullmatch(r"(.+?)\.((?:lora|lokr|hada)_.+)", name).groups()
        module = module.removeprefix(prefix)
        if network != "unet" and not module.startswith("text_model."):
            module = f"text_model.{module}"  # peft has the names that transformers has in memory
        by_module[module][part] = tensor.double()
    merged = dict(base_weights)
    for module, p in by_module.items():
        name = f"{module}.weight"
        weight = base_weights[name].double()
        if "lora_A.weight" in p:
            difference = p["lora_B.weight"].flatten(1) @ p["lora_A.weight"].flatten(1)
        elif any(part.startswith("hada") for part in p):
            one, two = (_whole(p, f"hada_w{n}", f"hada_t{n}") for n in (1, 2))
            difference = one * two
        else:
            one, two = _whole(p, "lokr_w1", ""), _whole(p, "lokr_w2", "lokr_t2")
            difference = torch.kron(one.reshape(*one.shape, *[1] * (two.dim() - 2)), two)
        changed = weight + scale * difference.reshape(weight.shape)
        if lengths := [p[part] for part in p if part.startswith("lora_magnitude_vector")]:
            length = lengths[0].flatten() / changed.flatten(1).norm(dim=1)
            changed = changed * length.reshape(-1, *[1] * (weight.dim() - 1))
        merged[name] = changed.float()
    return merged


def _whole(p: dict, name: str, core: str) -> torch.Tensor:
    if name in p:
        return p[name].contiguous()
    a, b = p[f"{name}_a"], p[f"{name}_b"]
    return torch.einsum("ijkl,ip,jr->prkl", p[core], a, b).contiguous() if core in p else a @ b


def with_weights(config: ModelConfig, weights: dict) -> UNet2DConditionModel:
    unet = StableDiffusionPipeline.from_pretrained(config.path).unet
    unet.load_state_dict(weights)
    return unet.eval()


def base_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    return dict(StableDiffusionPipeline.from_pretrained(config.path).unet.state_dict())


# Exports


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize("kind", METHODS)
def test_both_files_are_applied_as_trained(base, tmp_path, kind):
    method = METHODS[kind]
    model = trained(base, method)
    ours = output(model.unet, model)
    assert export(method, base, model, tmp_path / "export", name="mine") < 1e-4
    weights, file = base_of(base), tmp_path / "export" / "mine.safetensors"
    assert {name.split(".", 1)[1] for name in load_file(file)} == NAMES[kind]
    plain = output(with_weights(base, weights), model)
    moved = (ours - plain).abs().max()
    assert moved > 0.02
    for merged in (kohya_rules(file, weights), other_rules(tmp_path / "export", weights)):
        theirs = output(with_weights(base, merged), model)
        torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-4)
        assert sum(not torch.equal(merged[n], w) for n, w in weights.items()) == sum(
            hasattr(module, "base_layer") for module in model.unet.modules()
        )
    if kind != "lokr, both whole":  # where no reader takes alpha
        wrong = output(with_weights(base, kohya_rules(file, weights, alpha=False)), model)
        assert (wrong - ours).abs().max() > 0.05 * moved


@pytest.mark.parametrize("forgets", ["alpha", "dora_scale", "a module"])
def test_a_file_that_computes_something_else_is_refused(base, tmp_path, monkeypatch, forgets):
    method = METHODS["dora"]
    model, right = trained(base, method), kohya.tensors

    def wrong(unet):
        found = right(unet)
        first = next(iter(found)).partition(".")[0]
        if forgets == "alpha":
            return {n: torch.tensor(3.0) if n.endswith(".alpha") else t for n, t in found.items()}
        if forgets == "dora_scale":
            return {n: t for n, t in found.items() if not n.endswith(".dora_scale")}
        return {n: t for n, t in found.items() if not n.startswith(f"{first}.")}

    monkeypatch.setattr(kohya, "tensors", wrong)
    with pytest.raises(ExportMismatch, match="computes something else"):
        export(method, base, model, tmp_path / "export", name="mine")
    assert not (tmp_path / "export").exists()


def test_what_comfyui_makes_of_a_dora(base, tmp_path):
    """On the output axis it divides by the norm of the base's rows: off by the ratio of the two norms."""
    method = METHODS["dora"]
    model = trained(base, method, scale=0.05)
    export(method, base, model, tmp_path / "export", name="mine")
    weights, file = base_of(base), tmp_path / "export" / "mine.safetensors"
    right, comfy = (kohya_rules(file, weights, of_base=flag) for flag in (False, True))
    plain = {n: t for n, t in load_file(file).items() if n.endswith(".dora_scale")}
    assert plain
    changed = [n for n, w in weights.items() if not torch.equal(w, right[n])]
    assert len(changed) == len(plain)
    for name in changed:
        ratio = comfy[name].flatten(1).norm(dim=1) / right[name].flatten(1).norm(dim=1)
        assert (ratio - 1).abs().max() > 1e-4
        cosine = torch.cosine_similarity(comfy[name].flatten(1), right[name].flatten(1))
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-5, rtol=0)


def test_the_same_weights_give_the_same_bytes(base, tmp_path):
    for method in (METHODS["lora"], METHODS["lokr, one product"]):
        found = set()
        for turn in "ab":
            folder = tmp_path / method.name / turn
            export(method, base, trained(base, method), folder, name="mine")
            files = sorted(folder.iterdir())
            assert len(files) in (2, 3)
            found.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
        assert len(found) == 1


def test_the_header_says_what_readers_ask_for(base, tmp_path):
    method = METHODS["locon"]
    export(method, base, trained(base, method), tmp_path / "export", name="mine")
    file = tmp_path / "export" / "mine.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[start:]).hexdigest()
    header = json.loads(content[8:start])["__metadata__"]
    assert list(header) == sorted(header)
    assert header == {
        "modelspec.architecture": "latent-diffusion/lora",
        "modelspec.hash_sha256": f"0x{digest}",
        "modelspec.implementation": "diffusers",
        "modelspec.prediction_type": "v",
        "modelspec.resolution": "16x16",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": "mine",
        "ss_base_model_version": "unknown",
        "ss_network_alpha": "0.5",
        "ss_network_args": '{"conv_dim": "2", "conv_alpha": "0.5"}',
        "ss_network_dim": "2",
        "ss_network_module": "networks.lora",
        "ss_resolution": "(16, 16)",
        "ss_sd_model_name": Path(base.path).name,
        "ss_v2": "False",
        "sshs_model_hash": digest,
    }
    with safe_open(file, "pt") as opened:  # safetensors takes it, and reads the same
        assert opened.metadata() == header
        assert opened.get_tensor("lora_unet_mid_block_resnets_0_conv1.lora_down.weight").dim() == 4


def test_the_header_has_the_trigger_word(base, tmp_path):
    method = METHODS["locon"]
    export(method, base, trained(base, method), tmp_path / "export", name="mine", trigger="ohwx")
    with safe_open(tmp_path / "export" / "mine.safetensors", "pt") as opened:
        assert opened.metadata()["modelspec.trigger_phrase"] == "ohwx"


@pytest.mark.parametrize(
    ("sides", "text", "predicts", "family", "version"),
    [
        ((320, 640, 1280, 1280), 768, "epsilon", "stable-diffusion-v1", "sd_v1"),
        ((320, 640, 1280, 1280), 1024, "epsilon", "stable-diffusion-v2-512", "sd_v2"),
        ((320, 640, 1280, 1280), 1024, "v_prediction", "stable-diffusion-v2-768-v", "sd_v2_v"),
        ((320, 640, 1280), 2048, "epsilon", "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
        ((64, 128), 768, "epsilon", "latent-diffusion", "unknown"),
    ],
)
def test_the_family_is_told_by_the_u_net(sides, text, predicts, family, version):
    unet = {"block_out_channels": list(sides), "cross_attention_dim": text}
    assert kohya._family(unet, predicts) == (family, version)


def test_a_run_may_have_the_name_of_another_file(base, tmp_path):
    """Of two files with such an end, diffusers would take either."""
    method = METHODS["lora"]
    for name in ("pytorch_lora_weights", "my_pytorch_lora_weights", "adapter_model"):
        folder = tmp_path / name
        export(method, base, trained(base, method), folder, name=name)
        assert kohya.file_of(folder) == folder / f"{name}-kohya.safetensors"
        assert len(list(folder.iterdir())) == 2
    assert kohya.file_of(tmp_path) is None


# True sizes


@dataclass(frozen=True)
class Original:
    """A U-Net of Stability's code: how many transformer blocks each level has, from the outermost on."""

    depths: tuple[int, ...]
    middle: int
    settings: dict

    def names(self) -> dict[str, str]:
        """The modules that locon trains: their original names by those after diffusers."""
        found, levels = {}, len(self.depths)
        for level in range(levels):
            for layer in range(2):
                block = f"input_blocks_{1 + 3 * level + layer}"
                found |= _resnet(f"down_blocks_{level}_resnets_{layer}", f"{block}_0")
                ours = f"down_blocks_{level}_attentions_{layer}"
                found |= _transformer(ours, f"{block}_1", self.depths[level])
            for layer in range(3):
                block = f"output_blocks_{3 * level + layer}"
                found |= _resnet(f"up_blocks_{level}_resnets_{layer}", f"{block}_0")
                ours = f"up_blocks_{level}_attentions_{layer}"
                found |= _transformer(ours, f"{block}_1", self.depths[levels - 1 - level])
        found |= _transformer("mid_block_attentions_0", "middle_block_1", self.middle)
        for layer, place in ((0, 0), (1, 2)):
            found |= _resnet(f"mid_block_resnets_{layer}", f"middle_block_{place}")
        return found


def _resnet(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}_conv1": f"{theirs}_in_layers_2", f"{ours}_conv2": f"{theirs}_out_layers_3"}


def _transformer(ours: str, theirs: str, depth: int) -> dict[str, str]:
    if not depth:
        return {}
    parts = [f"attn{n}_to_{what}" for n in (1, 2) for what in ("q", "k", "v", "out_0")]
    parts += ["ff_net_0_proj", "ff_net_2"]
    inner = [f"transformer_blocks_{n}_{part}" for n in range(depth) for part in parts]
    return {f"{ours}_{part}": f"{theirs}_{part}" for part in ("proj_in", "proj_out", *inner)}


DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SD1 = Original(
    depths=(1, 1, 1, 0),
    middle=1,
    settings={
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
)
SD2 = Original(
    depths=SD1.depths,
    middle=1,
    settings={
        **SD1.settings,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
)
SDXL = Original(
    depths=(0, 2, 10),
    middle=10,
    settings={
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", DOWN, DOWN),
        "up_block_types": (UP, UP, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
)


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("original", "kind", "count"),
    [
        (SD1, "lora", 128),
        (SD1, "locon", 236),
        (SD1, "dora", 236),
        (SD1, "lokr, one product", 236),
        (SD1, "loha", 236),
        (SD2, "locon", 236),
        (SDXL, "lora", 560),
        (SDXL, "locon", 756),
    ],
)
def test_every_module_of_the_true_u_nets_is_matched(original, kind, count):
    """ComfyUI takes diffusers' names; AUTOMATIC1111 turns them into those of the original blocks."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**original.settings).requires_grad_(False)
        prepare(unet, METHODS[kind], seed=0)
        stems = {name.partition(".")[0] for name in kohya.tensors(unet)}
    trained = [name for name, _ in unet.named_modules() if name.endswith(".base_layer")]
    known = {f"lora_unet_{ours}": theirs for ours, theirs in original.names().items()}
    assert len(set(known.values())) == len(known)
    assert stems <= known.keys()
    assert len(stems) == len(trained) == count
    assert kind == "lora" or stems == known.keys()
