"""Heads on embeddings: published weights give their published order, any others their formula."""

import hashlib
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from curate.clip.config import HeadConfig
from curate.clip.heads import load_head
from curate.run.schema import UserError


@pytest.fixture
def embeddings():
    rows = np.random.default_rng(0).normal(size=(5, 768)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def detector():
    """LAION's NSFW architecture at random, as its own modules and as the state dict of its release."""
    torch.manual_seed(0)
    sizes = (768, 64, 512, 256, 1)
    linears = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    mean, variance = torch.randn(768) / 30, torch.rand(768) / 500 + 1e-4
    state = {"norm.mean": mean, "norm.variance": variance}
    for number, linear in enumerate(linears, start=1):
        state |= {f"linear_{number}.{name}": v.detach() for name, v in linear.named_parameters()}

    def forward(x):
        x = (x - mean) / variance.sqrt()
        for linear in linears[:-1]:
            x = linear(x).relu()
        return linears[-1](x).sigmoid()[:, 0].detach().numpy()

    return state, forward


def test_nsfw_head_is_the_published_network(tmp_path, embeddings):
    state, forward = detector()
    save_file(state, tmp_path / "head.safetensors")
    torch.save(state, tmp_path / "head.pth")
    expected = forward(torch.from_numpy(embeddings))
    for name in ("head.safetensors", "head.pth"):
        found = load_head(HeadConfig(path=str(tmp_path / name), kind="nsfw"))(embeddings)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_layers_follow_the_numbers_in_their_names(tmp_path, embeddings):
    torch.manual_seed(0)
    modules = torch.nn.Sequential(*[torch.nn.Linear(768, 768) for _ in range(11)])
    modules.append(torch.nn.Linear(768, 1))
    state = {f"layers.{name}": value.detach() for name, value in modules.named_parameters()}
    save_file(state, tmp_path / "deep.safetensors")
    expected = modules(torch.from_numpy(embeddings))[:, 0].detach().numpy()
    found = load_head(HeadConfig(path=str(tmp_path / "deep.safetensors")))(embeddings)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("sa_0_4_vit_l_14_linear.pth", -2.46, 11.30),
        ("sac+logos+ava1-l14-linearMSE.pth", 1.66, 5.75),
    ],
)
def test_laions_aesthetic_heads_rise_with_laions_ratings(shared, name, low, high):
    folder = shared / "aesthetic"
    ratings = [np.load(folder / f"vit_l_14_embeddings/rating{i}.npy") for i in range(10)]
    head = load_head(HeadConfig(path=str(folder / name)))
    scores = head(np.stack([row.reshape(-1).astype(np.float32) for row in ratings]))
    assert (np.diff(scores) > 0).all()
    assert (scores[0], scores[-1]) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_aesthetic_of_genuine_b32_embeddings(shared):
    """The published head on OpenAI's ViT-B/32 gives what the table beside the embeddings says."""
    pairs = np.load(shared / "clip_genuine/openai_vitb32_pairs.npz")
    table = (shared / "clip_genuine/aesthetic_v1_vitb32.csv").read_text().split()[1:]
    expected = {line.rsplit(",", 1)[0]: float(line.rsplit(",", 1)[1]) for line in table}
    head = load_head(HeadConfig(path=str(shared / "aesthetic/sa_0_4_vit_b_32_linear.pth")))
    found = sorted(head(pairs["image_embs"].astype(np.float32)))
    np.testing.assert_allclose(found, sorted(expected.values()), atol=2e-3)


def test_the_head_of_another_clip_is_refused_with_both_numbers(tmp_path):
    save_file({"weight": torch.ones(1, 768), "bias": torch.zeros(1)}, tmp_path / "v1.safetensors")
    head = load_head(HeadConfig(path=str(tmp_path / "v1.safetensors")))
    assert head.width == 768
    with pytest.raises(UserError, match=r"768 numbers.*makes 512"):
        head(np.ones((2, 512), np.float32))


def test_the_file_is_the_one_that_was_meant(tmp_path):
    path = tmp_path / "v1.safetensors"
    save_file({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_head(HeadConfig(path=str(path), sha256=digest)).sha256 == digest
    with pytest.raises(UserError, match=digest):
        load_head(HeadConfig(path=str(path), sha256="0" * 64))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_head(HeadConfig(path="nowhere"))


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"weight": Bomb()}, protocol=2))
    with pytest.raises(UserError, match="not a file of named tensors"):
        load_head(HeadConfig(path=str(tmp_path / "bomb.pth")))
    torch.save({"weight": Bomb()}, tmp_path / "zip.pt")
    with pytest.raises(UserError, match="not a file of named tensors"):
        load_head(HeadConfig(path=str(tmp_path / "zip.pt")))
    assert not (tmp_path / "ran").exists()


def test_what_does_not_fit_its_kind_is_refused(tmp_path):
    state, _ = detector()
    save_file(state, tmp_path / "nsfw.safetensors")
    save_file({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, tmp_path / "v1.safetensors")
    broken = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}
    save_file(broken, tmp_path / "wide.safetensors")
    for name, kind, says in (
        ("nsfw", "linear", "type kind=nsfw"),
        ("v1", "nsfw", "type kind=linear"),
        ("wide", "linear", "not a chain"),
    ):
        with pytest.raises(UserError, match=says):
            load_head(HeadConfig(path=str(tmp_path / f"{name}.safetensors"), kind=kind))


@pytest.mark.parametrize("bad", [{"kind": "relu"}, {"sha256": "abc"}])
def test_values_out_of_range_are_named(bad):
    with pytest.raises(UserError, match=rf"heads\.NAME\.{next(iter(bad))}"):
        HeadConfig(path="x", **bad)
