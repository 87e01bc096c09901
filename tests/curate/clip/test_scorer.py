"""The scorer: captions at their own length, nothing encoded twice, wrong names refused early."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from curate.clip import models
from curate.clip import scorer as clip
from curate.clip.check import slowdown
from curate.clip.config import ClipConfig
from curate.clip.load import load_clip
from curate.clip.models import check, check_tag, fingerprint
from curate.measures.decode import decode
from curate.run.files import sha256_of
from curate.run.schema import UserError

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
    return load_clip(ClipConfig(name=f"local-dir:{folder}", batch_size=2), "cpu")


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
    assert sorted(shapes) == [(2, 3), (2, 4)]  # a full batch of start, words, end; "a cat" once


def test_images_do_not_depend_on_the_batch(scorer):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(5)]
    together = scorer.encode_images(images)
    alone = np.concatenate([scorer.encode_images([image]) for image in images])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        pixels = torch.stack([scorer.preprocess(image) for image in images])
        direct = scorer.model.encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(together, direct, atol=2e-6)


def test_what_is_scored_together_changes_no_digit():
    """With a model of a size at which sums of other shapes are added in another order."""
    scorer = load_clip(ClipConfig(name="local-dir:curate/starter_clip"), "cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(40)]
    captions = [" ".join(["red", "cat", "on", "house"][: 1 + n % 4]) + f" {n}" for n in range(40)]
    whole = scorer.encode_images(images), scorer.encode_texts(captions)
    for places in (slice(0, 13), slice(13, 40), slice(7, 8)):
        np.testing.assert_array_equal(scorer.encode_images(images[places]), whole[0][places])
        np.testing.assert_array_equal(scorer.encode_texts(captions[places]), whole[1][places])


def test_nothing_in_nothing_out(scorer):
    assert len(scorer.encode_images([])) == len(scorer.encode_texts([])) == 0


def test_a_tower_that_sees_padding_keeps_it(make_clip, tmp_path):
    folder = make_clip(tmp_path / "two_way", no_causal_mask=True)
    scorer = load_clip(ClipConfig(name=f"local-dir:{folder}"), "cpu")
    tokens = scorer.tokenizer(CAPTIONS)
    assert clip._own_lengths(scorer.model, tokens) == [16] * len(CAPTIONS)


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(count)
    ]


def test_pixels_prepared_elsewhere_are_the_images(scorer):
    with ThreadPoolExecutor(2) as pool:
        pixels = list(pool.map(scorer.preprocess, noise(5)))
    np.testing.assert_array_equal(scorer.encode_pixels(pixels), scorer.encode_images(noise(5)))


def test_tokens_are_counted_before_anything_is_cut(scorer):
    assert scorer.tokens(["a cat", "", "x " * 40]) == [4, 2, 42]
    assert scorer.tokens([]) == []
    short = [caption for caption in CAPTIONS if len(caption) < 20]
    cut = clip._own_lengths(scorer.model, scorer.tokenizer(short))
    assert scorer.tokens(short) == cut


def test_a_tokenizer_reads_the_first_ten_thousand_characters(scorer, monkeypatch):
    read = []
    tokenizer = scorer.tokenizer

    def spy(texts):
        read.extend(texts)
        return tokenizer(texts)

    spy.encode = tokenizer.encode
    long = "a cat " * 100_000
    expected = scorer.encode_texts([long[:600]])[0]
    monkeypatch.setattr(scorer, "tokenizer", spy)
    np.testing.assert_array_equal(scorer.encode_texts([long, long + "x"]), [expected] * 2)
    assert read == [long[:10_000]]
    assert scorer.tokens([long]) == scorer.tokens([long[:10_000]]) == [3336]


def test_tokens_of_a_tokenizer_of_transformers(tiny_clip):
    starter = load_clip(ClipConfig(name="local-dir:curate/starter_clip"), "cpu")
    captions = ["a red house", "sun"]
    assert starter.tokens(captions) == clip._own_lengths(starter.model, starter.tokenizer(captions))
    assert starter.tokens(["red " * 300])[0] >= 302


class Greedy:
    """A model whose device holds no more than three pictures, or captions, at a time."""

    def __init__(self, model, holds=3):
        self.model, self.holds, self.batches = model, holds, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_image(self, pixels):
        if len(pixels) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(pixels))
        return self.model.encode_image(pixels)


def test_out_of_memory_halves_the_batch_and_goes_on(tiny_clip, capsys):
    scorer = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", batch_size=8), "cpu")
    expected = scorer.encode_images(noise(21))
    greedy = replace(scorer, model=Greedy(scorer.model))
    np.testing.assert_allclose(greedy.encode_images(noise(21)), expected, atol=2e-6)
    assert greedy.model.batches == [2] * 11  # found while the first 8 were encoded
    assert greedy.batch_size == 2
    assert "batches of 2" in capsys.readouterr().out
    alone = replace(scorer, model=Greedy(scorer.model))
    np.testing.assert_allclose(alone.encode_images(noise(21)[:1]), expected[:1], atol=2e-6)
    with pytest.raises(torch.OutOfMemoryError):
        replace(scorer, model=Greedy(scorer.model, holds=0)).encode_images(noise(3))


def test_device_and_rate_are_told(tiny_clip, capsys):
    config = ClipConfig(name=f"local-dir:{tiny_clip}", device="cpu")
    scorer = load_clip(config)
    assert "on cpu, fp32, batches of 32" in capsys.readouterr().out
    assert scorer.speed() == "0.0 images/s, 0.0 captions/s on cpu"
    scorer.encode_images(noise(3))
    scorer.encode_texts(["a cat", "a cat", "sun"])
    assert (scorer.images.items, scorer.texts.items) == (3, 2)
    assert scorer.images.rate == pytest.approx(3 / scorer.images.seconds)


@pytest.mark.parametrize(("times", "warned"), [(1.6, True), (1.05, False), (0.3, False)])
def test_precision_that_does_not_pay_is_told(tiny_clip, capsys, monkeypatch, times, warned):
    monkeypatch.setattr("curate.clip.load.slowdown", lambda _: times)
    load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", precision="bf16"), "cpu")
    said = capsys.readouterr().out
    assert ("times as long" in said) == warned
    assert ("in bf16 takes 1.6 times as long as in fp32" in said) == warned


def test_precision_is_timed_against_fp32(monkeypatch):
    seconds = {torch.bfloat16: [9.0, 6.0, 7.0, 8.0], torch.float32: [4.0, 5.0, 2.0, 3.0]}
    now = 0.0

    def linear(features, weight):
        nonlocal now
        assert features.dtype == weight.dtype
        now += seconds[features.dtype].pop(0)

    monkeypatch.setattr("torch.nn.functional.linear", linear)
    monkeypatch.setattr("curate.clip.check.perf_counter", lambda: now)
    assert slowdown(torch.bfloat16) == 3.0  # of the fastest, for the others were disturbed


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_a_device_that_is_not_there_is_refused(tiny_clip):
    with pytest.raises(UserError, match=r"clip\.device=cuda.*type clip\.device=auto"):
        load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", device="cuda"))


@pytest.mark.parametrize(
    "bad",
    [{"precision": "fp8"}, {"device": "gpu"}, {"batch_size": 0}],
    ids=lambda bad: next(iter(bad)),
)
def test_values_out_of_range_are_named(bad):
    with pytest.raises(UserError, match=rf"clip\.{next(iter(bad))}"):
        ClipConfig(name="x", **bad)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_converts_the_weights_and_moves_scores_little(tiny_clip, precision):
    full = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}"), "cpu")
    low = load_clip(ClipConfig(name=f"local-dir:{tiny_clip}", precision=precision), "cpu")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert low.model.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype == dtype
    assert low.model.ln_final.weight.dtype == torch.float32
    scores = [s.encode_images(noise(8)) @ s.encode_texts(CAPTIONS).T for s in (full, low)]
    moved = np.abs(scores[0] - scores[1]).max()
    assert 0 < moved < 0.02
    assert low.fingerprint != full.fingerprint


@pytest.mark.parametrize("fault", ["batch", "padding", "nan", "zero"])
def test_a_device_that_computes_wrongly_is_refused(tiny_clip, monkeypatch, fault):
    from open_clip.model import CLIP

    image, text = CLIP.encode_image, CLIP.encode_text

    def broken_image(self, pixels, normalize=False):
        features = image(self, pixels)
        if fault == "batch" and len(pixels) > 1:
            return features.flip(1)
        return features * {"nan": float("nan"), "zero": 0.0}.get(fault, 1.0)

    def broken_text(self, tokens, normalize=False):
        features = text(self, tokens)
        wrong = fault == "padding" and tokens.shape[1] == self.context_length
        return features.flip(1) if wrong else features

    monkeypatch.setattr(CLIP, "encode_image", broken_image)
    monkeypatch.setattr(CLIP, "encode_text", broken_text)
    what = "a caption alone and padded" if fault == "padding" else "an image alone and in a batch"
    for precision, advice in (("fp32", "clip.device=cpu"), ("bf16", "clip.precision=fp32")):
        config = ClipConfig(name=f"local-dir:{tiny_clip}", precision=precision)
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
        with pytest.raises(RuntimeError, match=rf"on cpu in {dtype}: {what}.*{advice}"):
            load_clip(config, "cpu")


@pytest.mark.slow
def test_openais_vit_b32_gives_its_published_values(shared):
    """Cosines of seven photographs and 80 class names, by OpenAI's own weights; see its SOURCE.txt."""
    try:
        scorer = load_clip(ClipConfig(name="ViT-B-32-quickgelu", pretrained="openai"), "cpu")
    except UserError as error:
        pytest.skip(f"OpenAI's weights are not here: {str(error)[:80]}")
    folder = shared / "clip_genuine"
    table = pd.read_csv(folder / "scores_7images_x_80coco.csv", index_col="image")
    images = [decode((folder / name).read_bytes()) for name in table.index]
    found = scorer.encode_images(images) @ scorer.encode_texts(list(table.columns)).T
    np.testing.assert_allclose(found, table.to_numpy(), atol=2e-3)


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
        check(config)


def test_a_wrong_tag_lists_the_right_ones():
    with pytest.raises(UserError, match="laion2b_s34b_b79k"):
        load_clip(ClipConfig(name="ViT-B-32", pretrained="laion9"))


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-L-14", "openai"), ("ViT-B-32", "laion400m_e32"), ("RN50", "cc12m")]
)
def test_weights_of_another_activation_are_refused_by_the_name_to_type(name, tag, monkeypatch):
    monkeypatch.setattr(
        "open_clip.create_model_and_transforms", lambda *_, **__: pytest.fail("weights were loaded")
    )
    with pytest.raises(UserError, match=rf"clip\.name={name}-quickgelu"):
        load_clip(ClipConfig(name=name, pretrained=tag))


def test_every_refused_name_has_one_that_is_accepted():
    from open_clip import list_pretrained

    refused = 0
    for name, tag in list_pretrained():
        try:
            check_tag(ClipConfig(name=name, pretrained=tag))
        except UserError:
            check_tag(ClipConfig(name=f"{name}-quickgelu", pretrained=tag))
            refused += 1
    assert refused > 20


def test_fingerprint_follows_weights_and_precision(tiny_clip, make_clip, tmp_path):
    config = ClipConfig(name=f"local-dir:{tiny_clip}")
    other = make_clip(tmp_path / "other", layers=1)
    found = {
        fingerprint(config),
        fingerprint(ClipConfig(name=config.name, precision="bf16")),
        fingerprint(ClipConfig(name=f"local-dir:{other}")),
        fingerprint(ClipConfig(name="ViT-B-32", pretrained="openai")),
    }
    assert len(found) == 4
    assert fingerprint(ClipConfig(name=config.name, batch_size=3)) == fingerprint(config)


def test_weights_are_hashed_once_unless_they_change(make_clip, tmp_path, monkeypatch):
    folder, read = make_clip(tmp_path / "own"), []
    monkeypatch.setattr(models, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    config = ClipConfig(name=f"local-dir:{folder}")
    found = {fingerprint(config) for _ in range(3)}
    assert sorted(read) == sorted(path.name for path in folder.iterdir())
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    read.clear()
    assert fingerprint(config) not in found
    assert read == [weights.name]
