"""Weights from elsewhere: files that the user names, folders that would run code, a hub out of reach."""

import json
import pickle
import shutil

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file

from curate.clip import availability, models
from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from curate.clip.models import check, fingerprint
from curate.run import hub
from curate.run.schema import UserError


@pytest.fixture
def architecture(tiny_clip, monkeypatch):
    """A name of open_clip's with the tiny CLIP's architecture, and no tag."""
    content = json.loads((tiny_clip / "open_clip_config.json").read_bytes())["model_cfg"]
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-test", content)
    monkeypatch.setattr(models, "_builtin_names", lambda: ["tiny-test", "ViT-B-32"])
    return "tiny-test"


@pytest.fixture
def copy(tiny_clip, tmp_path):
    return shutil.copytree(tiny_clip, tmp_path / "clip")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_from_a_file_are_those_of_the_folder(architecture, tiny_clip, tmp_path, suffix):
    file = tmp_path / f"my weights{suffix}"
    source = tiny_clip / "open_clip_model.safetensors"
    if suffix == ".pt":
        torch.save({"state_dict": load_file(source)}, file)
    else:
        shutil.copy(source, file)
    config = ClipConfig(name=architecture, pretrained=str(file), device="cpu")
    scorer = load_clip(config)
    expected = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu"))
    captions = ["a cat", "a red house"]
    np.testing.assert_array_equal(scorer.encode_texts(captions), expected.encode_texts(captions))
    before = fingerprint(config)
    file.write_bytes(file.read_bytes() + b"\0")
    assert fingerprint(config) != before


class Program:
    """What a pickle of it does when it is opened: a file appears."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_file_that_holds_a_program_is_not_opened(architecture, tmp_path):
    file, mark = tmp_path / "weights.pt", tmp_path / "it ran"
    torch.save({"state_dict": Program(mark)}, file)
    with pytest.raises(UserError, match="more than tensors") as refused:
        load_clip(ClipConfig(name=architecture, pretrained=str(file), device="cpu"))
    assert "weights_only" not in str(refused.value)
    assert not mark.exists()


def test_a_file_that_is_not_there_is_named(architecture):
    with pytest.raises(FileNotFoundError, match=r"clip.pretrained=no/such.pt: no such file"):
        check(ClipConfig(name=architecture, pretrained="no/such.pt"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            {"tokenizer_kwargs": {"trust_remote_code": True}},
            "open_clip_config.json sets 'trust_remote_code'",
        ),
        ({"hf_tokenizer_name": "THERE"}, "tokenizer_config.json sets 'auto_map'"),
    ],
)
def test_a_folder_that_would_run_code_is_refused(copy, tmp_path, text, says):
    there = tmp_path / "tokenizer"
    there.mkdir()
    (there / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'
    )
    (there / "evil.py").write_text("raise SystemExit('foreign code ran')")
    path = copy / "open_clip_config.json"
    content = json.loads(path.read_bytes())
    content["model_cfg"]["text_cfg"] |= json.loads(json.dumps(text).replace("THERE", str(there)))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=says):
        load_clip(ClipConfig(name=f"local-dir:{copy}", device="cpu"))


def test_a_pickle_beside_other_weights_is_never_taken(copy):
    (copy / "open_clip_model.safetensors").rename(copy / "open_clip_mine.safetensors")
    (copy / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Program(copy / "it ran")))
    with pytest.raises((UserError, FileNotFoundError), match=r"open_clip_model.safetensors"):
        check(ClipConfig(name=f"local-dir:{copy}"))


def test_a_pickle_alone_is_refused_by_name(copy):
    (copy / "open_clip_model.safetensors").rename(copy / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=r"open_clip_pytorch_model.bin.*pickles"):
        check(ClipConfig(name=f"local-dir:{copy}"))


def test_without_hub_and_copy_one_paragraph_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    config = ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai")
    with pytest.raises(UserError, match=r"not on this machine.*clip=starter filters=default"):
        availability.check_available(config)
    monkeypatch.setattr(hub, "is_reachable", lambda: True)
    availability.check_available(config)


def test_a_copy_in_the_cache_needs_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--other").mkdir()
    asked = []
    monkeypatch.setattr(hub, "cached_file", lambda name, files: asked.append((name, files)))
    config = ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai")
    with pytest.raises(UserError, match="not on this machine"):
        availability.check_available(config)
    assert asked[0][0] == "timm/vit_base_patch32_clip_224.openai"
    assert open_clip.constants.HF_SAFE_WEIGHTS_NAME in asked[0][1]
    monkeypatch.setattr(hub, "cached_file", lambda *_: tmp_path)
    availability.check_available(config)


def test_a_host_that_does_not_answer_is_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert not hub.is_reachable.__wrapped__()


def test_a_host_that_answers_is_reachable(monkeypatch):
    import socket

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        assert hub.is_reachable.__wrapped__()
