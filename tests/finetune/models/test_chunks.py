"""Long captions: what each chunk is, against the encoders alone and against kohya's rules; in cache, loss and pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import lost_in_encoding
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run
from tests.finetune.models.conftest import save_xl_pipeline

# The tiny tokenizers read six letters at a time: one chunk and none, a full one, one and a bit, two, three and a bit.
CAPTIONS = ["abc", "", "abcdef", "abcdefg", "abcdefghijkl", "abc, defghijklmnopqrstuv"]


def load(folder, tokens: int, **settings):
    resolution = 32 if "xl" in folder.name else 16
    return load_model(
        ModelConfig(path=str(folder), resolution=resolution, caption_tokens=tokens, **settings)
    )


def by_hand(tokenizer, encoder, caption: str, chunks: int):
    """What the encoder says of each chunk alone; every chunk is a text of six letters or fewer."""
    letters = tokenizer(caption, add_special_tokens=False).input_ids
    found = []
    for number in range(chunks):
        part = letters[6 * number : 6 * number + 6]
        ids = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (8 - len(ids))
        with torch.no_grad():
            found.append(encoder(torch.tensor([ids]), output_hidden_states=True))
    return found


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_each_chunk_is_what_the_encoder_says_of_it_alone(pipeline_dir, chunks):
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    found = load(pipeline_dir, 75 * chunks).encode_captions(CAPTIONS)["hidden"]
    assert found.shape == (len(CAPTIONS), 8 * chunks, 16)
    for row, caption in zip(found, CAPTIONS, strict=True):
        states = by_hand(pipe.tokenizer, pipe.text_encoder, caption, chunks)
        expected = torch.cat([each.last_hidden_state[0] for each in states])
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_has_the_chunks_of_both_encoders_and_the_first_ones_pooled_text(
    tmp_path, chunks, zeros
):
    folder = save_xl_pipeline(tmp_path / "xl", force_zeros_for_empty_prompt=zeros)
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    found = load(folder, 75 * chunks).encode_captions(CAPTIONS)
    for row, pooled, caption in zip(found["hidden"], found["pooled"], CAPTIONS, strict=True):
        first = by_hand(pipe.tokenizer, pipe.text_encoder, caption, chunks)
        second = by_hand(pipe.tokenizer_2, pipe.text_encoder_2, caption, chunks)
        both = [torch.cat([each.hidden_states[-2][0] for each in part]) for part in (first, second)]
        there = float(bool(caption) or not zeros)
        torch.testing.assert_close(row, there * torch.cat(both, 1), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(pooled, there * second[0].text_embeds[0], atol=1e-6, rtol=1e-5)


def test_without_the_marks_between_them_they_are_kohyas(pipeline_dir):
    """kohya: one text of 2 + 3 × 6 tokens, cut into [start, six of them, the last one]; kept are 1 + 3 × 6 + 1 states."""
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    found = load(pipeline_dir, 225).encode_captions(CAPTIONS)["hidden"]
    inner = [place for place in range(24) if place in (0, 23) or place % 8 not in (0, 7)]
    for row, caption in zip(found, CAPTIONS, strict=True):
        ids = pipe.tokenizer(
            caption, padding="max_length", max_length=20, truncation=True, return_tensors="pt"
        ).input_ids[0]
        cut = [torch.cat([ids[:1], ids[at : at + 6], ids[-1:]]) for at in (1, 7, 13)]
        with torch.no_grad():
            states = pipe.text_encoder(torch.stack(cut))[0]
        theirs = torch.cat([states[0, :1], *states[:, 1:-1], states[-1, -1:]])
        torch.testing.assert_close(row[inner], theirs, atol=1e-6, rtol=1e-5)


def test_what_is_cut_off_follows(pipeline_dir, xl_dir):
    for folder in (pipeline_dir, xl_dir):
        for tokens, end in ((75, "ghijklmn"), (150, "mn"), (225, "")):
            model = load(folder, tokens)
            assert model.cut_off("abcdefghijklmn").replace(" ", "") == end
            assert model.cut_off("abcdefghijklmnopqrst"[: 6 * tokens // 75]) == ""
    model = load(pipeline_dir, 150)
    hidden = [
        model.encode_captions([f"abcdefghijk{end}"])["hidden"] for end in ("lx", "lyz", "x", "y")
    ]
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[2], hidden[3])


def test_both_settings_together(deep_dir):
    found = load(deep_dir, 150, clip_skip=2).encode_captions(["abc def ghi"])["hidden"]
    apart = load(deep_dir, 75, clip_skip=2).encode_captions(["abc def", "ghi"])["hidden"]
    torch.testing.assert_close(found[0], apart.flatten(0, 1))
    prints = [
        load(deep_dir, *each).caption_fingerprint() if each else ""
        for each in ((75,), (150,), (225,))
    ]
    assert len(set(prints)) == 3


def test_only_whole_chunks_are_accepted():
    with pytest.raises(UserError, match=r"model\.caption_tokens=77 .* 75, 150, 225"):
        ModelConfig(path="x", resolution=16, caption_tokens=77)


def test_training_and_drawing_use_the_chunks(make_config, run_training, pipeline_dir, capsys):
    """The curated captions have up to eleven letters, which the default cuts and two chunks hold."""
    config = make_config(
        **{"model.caption_tokens": 150, "train.samples": 16, "samples.captions": 1}
    )
    run_training(config)
    said = capsys.readouterr().out
    assert re.search(
        r"^text    0\.0% of \d+ captions are longer than 16 tokens", said, re.MULTILINE
    )
    assert "read in 2 chunks of 75" in (config.folder / "export" / "README.md").read_text()
    run = load_run(config.run.folder)
    model, items = run.model(), run.items("val", 4)
    captions = run.captions("val", 4)
    assert max(map(len, captions)) > 7
    expected = model.encode_captions(captions)["hidden"].half().float()
    assert torch.equal(items.conditioning["hidden"], expected)
    assert expected.shape[1] == 16
    sampler = Sampler(model, SamplerConfig("ddim", 2, 3.0), 0, 2)
    pictures = [
        np.asarray(sampler.draw(model.unet, [Prompt("k", text)])[0], int)
        for text in ("abcdefgh", "abcdefgx", "abcdefghijklmn", "abcdefghijklmx")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() > 0
    assert np.abs(pictures[2] - pictures[3]).max() == 0
    shards = read_manifest(config.curate_dir).shards_of("train")
    assert lost_in_encoding.measure(load(pipeline_dir, 75), config.curate_dir, shards).cut > 0
