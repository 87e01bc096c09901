"""The scorer: captions at their own length, nothing encoded twice, wrong names refused early."""

import numpy as np
import pytest
import torch
from PIL import Image

from curate import clip
from curate.command import UserError
from curate.config import ClipConfig

CAPTIONS = [
    "a cat",
    "a red house beside the small blue tree of my friend",
    "",
    "sun",
    "a cat",
    "x " * 40,
]


@pytest.fixture(scope="module", params=["plain", "custom", "eos"])
def scorer(request, tiny_clip, make_clip, tmp_path_factory):
    """The three shapes of a causal text tower in open_clip: inside the model, beside it, pooled at eos."""
    folder = tiny_clip
    if request.param != "plain":
        text = {"pool_type": "eos", "eos_id": 49407} if request.param == "eos" else {}
        folder = tmp_path_factory.mktemp("clip") / request.param
        make_clip(folder, **text, **({"proj_type": "linear"} if request.param == "custom" else {}))
    return clip.load_clip(ClipConfig(name=f"local-dir:{folder}", batch_size=2), "cpu")


def test_own_length_equals_padded(scorer):
    tokens = scorer.tokenizer(CAPTIONS)
    with torch.inference_mode():
        padded = scorer.model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(scorer.encode_texts(CAPTIONS), padded, atol=2e-6)


def test_short_captions_take_short_batches(scorer, monkeypatch):
    shapes = []
    original = clip.ClipScorer._encode_tokens

    def spy(self, tokens):
        shapes.append(tuple(tokens.shape))
        return original(self, tokens)

    monkeypatch.setattr(clip.ClipScorer, "_encode_tokens", spy)
    scorer.encode_texts(["a cat", "a cat", "a dog", "sun"])
    assert sorted(shapes) == [(1, 3), (2, 4)]  # start, words, end; the repeated caption once


def test_images_do_not_depend_on_the_batch(scorer):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(5)]
    together = scorer.encode_images(images)
    alone = np.concatenate([scorer.encode_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        pixels = torch.stack([scorer.preprocess(image) for image in images])
        direct = scorer.model.encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(together, direct, atol=2e-6)


def test_nothing_in_nothing_out(scorer):
    assert len(scorer.encode_images([])) == len(scorer.encode_texts([])) == 0


def test_a_tower_that_sees_padding_keeps_it(make_clip, tmp_path):
    folder = make_clip(tmp_path / "two_way", no_causal_mask=True)
    scorer = clip.load_clip(ClipConfig(name=f"local-dir:{folder}"), "cpu")
    tokens = scorer.tokenizer(CAPTIONS)
    assert clip._own_lengths(scorer.model, tokens) == [16] * len(CAPTIONS)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ClipConfig(name="ViT-B32", pretrained="openai"), "near: ViT-B-32"),
        (ClipConfig(name="ViT-B-32"), "clip.pretrained=TAG"),
        (ClipConfig(name="local-dir:nowhere"), "local-dir:FOLDER"),
    ],
)
def test_a_wrong_model_is_refused_with_what_to_type(config, says):
    with pytest.raises((UserError, FileNotFoundError), match=says):
        clip.check(config)


def test_a_wrong_tag_lists_the_right_ones():
    with pytest.raises(UserError, match="laion2b_s34b_b79k"):
        clip.load_clip(ClipConfig(name="ViT-B-32", pretrained="laion9"))


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-L-14", "openai"), ("ViT-B-32", "laion400m_e32"), ("RN50", "cc12m")]
)
def test_weights_of_another_activation_are_refused_by_the_name_to_type(name, tag, monkeypatch):
    monkeypatch.setattr(
        "open_clip.create_model_and_transforms", lambda *_, **__: pytest.fail("weights were loaded")
    )
    with pytest.raises(UserError, match=rf"clip\.name={name}-quickgelu"):
        clip.load_clip(ClipConfig(name=name, pretrained=tag))


def test_every_refused_name_has_one_that_is_accepted():
    from open_clip import list_pretrained

    refused = 0
    for name, tag in list_pretrained():
        try:
            clip.check_tag(ClipConfig(name=name, pretrained=tag))
        except UserError:
            clip.check_tag(ClipConfig(name=f"{name}-quickgelu", pretrained=tag))
            refused += 1
    assert refused > 20


def test_fingerprint_follows_weights_and_precision(tiny_clip, make_clip, tmp_path):
    config = ClipConfig(name=f"local-dir:{tiny_clip}")
    other = make_clip(tmp_path / "other", layers=1)
    found = {
        clip.fingerprint(config),
        clip.fingerprint(ClipConfig(name=config.name, precision="bf16")),
        clip.fingerprint(ClipConfig(name=f"local-dir:{other}")),
        clip.fingerprint(ClipConfig(name="ViT-B-32", pretrained="openai")),
    }
    assert len(found) == 4
    assert clip.fingerprint(ClipConfig(name=config.name, batch_size=3)) == clip.fingerprint(config)
