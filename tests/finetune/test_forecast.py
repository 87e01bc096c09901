"""Forecasts against what a training then takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from curate.measures.decode import encode
from finetune import canny, checks, companions, forecast, joined
from finetune.cache import CACHE, encode_shards
from finetune.cache.framing import Framing
from finetune.methods import prepare, prepare_model
from finetune.models import load_model
from tests.finetune.conftest import curate, picture


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("method", ["full", "lora", "lora and text encoder"])
@pytest.mark.parametrize("keep", [None, 1])
def test_the_disk_holds_what_was_forecast(make_config, run_training, capsys, method, keep):
    kind, _, text = method.partition(" and ")
    changes = {"checkpoint.every": 8, "checkpoint.keep": keep, "method.text_encoder": bool(text)}
    config = make_config(method=kind, **changes)
    run_training(config)
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk"))
    checkpoints = sorted((config.folder / "checkpoints").glob("step-*"))
    assert " 4 checkpoints of " in said
    assert (", 2 of them cut to " in said) == bool(keep)
    assert len(checkpoints) == 4
    model = load_model(config.model, captions=config.captions)
    prepare_model(model, config.method, 0)
    text = forecast.disk(config, model, 18, 27)
    cached, each, export = (
        _bytes(text.partition(before)[2].split(after)[0])
        for before, after in (("captions ", " less"), (" of ", ","), ("export ", ";"))
    )
    assert text.split(";")[0] == said.split(";")[0].removeprefix("disk").strip()
    assert _on_disk(checkpoints[-1], "*.safetensors") == pytest.approx(each, rel=0.3)
    assert _on_disk(config.folder / "export", "**/*.safetensors") == pytest.approx(export, rel=0.3)
    packs = config.run.folder.parent / CACHE
    assert _on_disk(packs, "**/*.safetensors") == pytest.approx(cached, rel=0.5)


WAYS = {
    "masks": {"objective.mask": True},
    "conditions": {"method": "controlnet", "method.condition": "file"},
    "edges": {"method": "controlnet"},
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_beside_latents_is_forecast_to_the_byte(
    make_config, tmp_path, monkeypatch, way, flip
):
    """Two thirds of the pictures have a mask, and all a condition."""
    monkeypatch.setattr(canny, "edges", lambda image: np.zeros(image.size[::-1], np.uint8))
    sparse = way == "masks"

    def beside(seed: int) -> dict[str, bytes]:
        if sparse and seed % 3 == 0:
            return {}
        data = encode(picture(1000 + seed), "png", 95)  # another of each, none is kept once for two
        return {"mask": data, "control": data}

    counts = {"train": 12, "val": 6}
    curate(tmp_path / "tiny" / "curate", counts, beside=beside)
    config = make_config(**WAYS[way], **{"data.flip": flip})
    model, manifest = load_model(config.model), joined.read(config)
    prepare_model(model, config.method, 0)
    config.folder.mkdir(parents=True)
    said = checks.look_at(config, manifest, model, False)["disk"]
    assert f"latents, {'conditions' if way == 'edges' else way} and captions " in said
    forecast_bytes = companions.cached_bytes(config, model, manifest, checks.sides(config))

    there, found = set(), 0
    cache = tmp_path / CACHE
    for split in counts:
        framing = Framing.of(config, split, all_views=True)
        data = config.curate_dir, manifest.shards_of(split), cache, framing
        encode_shards(model, *data)
        there |= set(cache.rglob("*.safetensors"))
        companions.encode(config, model, *data)
        for path in set(cache.rglob("*.safetensors")) - there:
            found += load_file(path)["made"].nbytes
            there.add(path)
    assert sum(forecast_bytes.values()) == found
    pixels = {"masks": 4 * 4 * 4, "conditions": 3 * 16 * 16, "edges": 16 * 16}[way]
    entries = (8 if sparse else 12) * (1 + flip) + (4 if sparse else 6)
    assert found == entries * pixels


def test_a_disk_that_is_too_small_is_said(make_config, monkeypatch):
    config = make_config(**{"checkpoint.keep": None})
    model = load_model(config.model)
    prepare(model.unet, config.method, 0)
    assert "NOT ENOUGH" not in forecast.disk(config, model, 12, 12)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "1.0 kB free, NOT ENOUGH: type checkpoint.keep=2" in forecast.disk(config, model, 12, 12)
    config.checkpoint.keep = 1
    assert "NOT ENOUGH: type a larger checkpoint.every" in forecast.disk(config, model, 12, 12)


def test_memory_counts_what_the_optimizer_holds(make_config):
    config = make_config()
    model: Any = load_model(config.model)
    prepare(model.unet, config.method, 0)
    weights = config.method.trainable(model.unet)
    count = sum(weight.numel() for weight in weights.values())
    whole = count + sum(
        w.numel() for part in (model.vae, model.text_encoder) for w in part.parameters()
    )
    text = forecast.memory(model, weights, 4000, 4, averaged=True, processes=1)
    total, fixed, optimizer = (
        _bytes(text.partition(before)[2].split(after)[0])
        for before, after in (("about ", " an"), ("weights ", ","), ("average ", ","))
    )
    assert fixed == pytest.approx(4 * whole, rel=0.06)
    assert optimizer == pytest.approx(12 * count, rel=0.06)
    assert total == pytest.approx(4 * whole + 12 * count + 4000, rel=0.06)
    assert "gradients and activations of 4 at a time 4.0 kB" in text


def test_memory_and_start_lines_count_trained_text_encoders(make_config, run_training, capsys):
    """By hand: a LoRA of rank 2 on four 16 x 16 projections of the encoder has 4 x 2 x (16 + 16) weights."""
    changes = {"method.rank": 2, "method.alpha": 2, "train.samples": 4, "heldout.items": 0}
    changes |= {"ema.decay": None}
    said = []
    for name, text in (("alone", False), ("both", True)):
        run_training(make_config(name, method="lora", **changes, **{"method.text_encoder": text}))
        lines = capsys.readouterr().out.splitlines()
        said.append({line[:8].strip(): line[8:] for line in lines})
    alone, both = said
    model: Any = load_model(make_config("both").model)
    total = sum(weight.numel() for weight in model.text_encoder.parameters()) + 256
    added = f"; 256 trained, {25600 / total:.3g} % of text_encoder's {total:,}"
    assert both["weights"].startswith(alone["weights"] + added)
    optimizer, kept = (
        [_bytes(each["memory"].partition(word)[2].split(after)[0]) for each in said]
        for word, after in (("optimizer ", ","), ("at a time ", ";"))
    )
    assert optimizer[1] - optimizer[0] == pytest.approx(2 * 4 * 256, rel=0.1)
    assert kept[1] > kept[0]  # what the encoder keeps for its backward pass


def test_the_time_that_is_left_is_said_once(make_config, run_training, capsys):
    run_training(make_config(**{"train.samples": 80}))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time ")]
    assert len(said) == 2  # the other, at the end, is what the time went to
    assert " more: 10 updates at " in said[0]
    assert ", 3 evaluations at " in said[0]  # after 48, 64 and 80 samples


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def _on_disk(folder, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))
