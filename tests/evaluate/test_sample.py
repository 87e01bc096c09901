"""``evaluate.sample`` as a whole: pictures of a run's checkpoints, drawn once, with all that made them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file

from curate.run.locks import locked
from curate.run.overrides import CONF, prepare
from curate.run.schema import Busy, UserError, to_dataclass
from evaluate import sample
from evaluate.drawing import infotext
from evaluate.sample_config import SampleConfig
from finetune.drawing import sampling
from finetune.drawing.sampling import PIXELS
from tests.curate.conftest import save_clip
from tests.finetune.conftest import (
    deep_dir,
    make_config,
    pipeline_dir,
    run_training,
    save_pipeline,
)

__all__ = ["deep_dir", "pipeline_dir"]

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = 'prompt=["a red square","a bar, blue"]'


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pipeline_dir):
    """A LoRA run of two checkpoints, and a full one, trained once for this file."""
    root = tmp_path_factory.mktemp("runs")
    make = make_config.__wrapped__(root, pipeline_dir)
    train = run_training.__wrapped__()
    for name, method in (("lora", "lora"), ("full", "full")):
        train(make(name, method=method, **{"optim.lr": 0.05}))
    return root


@pytest.fixture
def draw(trained, tmp_path, capsys):
    """Draw into a folder of its own; returns the records and what was said."""

    def drawn(*typed, run="lora", out="out"):
        arguments = [f"run.root={trained}", f"run.name={run}", "sampler.steps=3", *typed]
        if out:
            arguments.append(f"out={tmp_path / out}")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("sample", overrides=prepare(arguments))
        sample.start(to_dataclass(cfg, SampleConfig))
        folder = tmp_path / out if out else trained / run / "evaluate" / "sample"
        records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        return [
            record | {"path": folder / record["file"]} for record in records
        ], capsys.readouterr().out

    return drawn


def pixels(record):
    with Image.open(record["path"]) as picture:
        return np.asarray(picture.convert("RGB"), int)


def test_what_is_written(draw, tmp_path):
    records, said = draw(PROMPTS, "checkpoints=[base,4,8]", "seeds=2", "negative_prompt=blue")
    assert len(records) == 12
    assert [r["checkpoint"] for r in records] == ["base"] * 4 + [4] * 4 + [8] * 4
    assert [r["seed"] for r in records] == [0, 1] * 6
    assert {r["path"].parent.name for r in records} == {"base", "step-00000004", "step-00000008"}
    assert len({r["path"].read_bytes() for r in records}) == 12
    assert "draws 12 pictures" in said
    with Image.open(tmp_path / "out" / "sheet-001.png") as sheet:
        assert sheet.height > 4 * 128  # two prompts, two seeds each
        assert 3 * 128 < sheet.width < 900
    text = infotext.read(sampling.texts_of(records[-1]["path"])["parameters"])
    assert (text.prompt, text.negative) == ("a bar, blue", "blue")
    assert text.values["Sampler"] == "DPM++ 2M"
    assert text.values["Size"] == "16x16"
    assert text.values["Seed"] == "1"
    assert text.values["Model"] == "tiny"
    assert text.values["Checkpoint"] == "step 8"
    assert text.values["Darkroom run"] == "lora"


def test_the_same_command_again_draws_nothing_and_a_damaged_picture_is_drawn_again(draw):
    first, _ = draw(PROMPTS, "seeds=2", out="")
    stamps = [r["path"].stat().st_mtime_ns for r in first]
    again, said = draw(PROMPTS, "seeds=2", "batch_size=1", out="")
    assert "all 4 pictures are in" in said
    assert again == first
    assert [r["path"].stat().st_mtime_ns for r in again] == stamps
    whole = first[2]["path"].read_bytes()
    first[2]["path"].unlink()
    Image.new("RGB", (16, 16)).save(first[3]["path"])
    _, said = draw(PROMPTS, "seeds=2", out="")
    assert "draws 2 pictures, 2 are there already" in said
    assert first[2]["path"].read_bytes() == whole
    other, _ = draw(PROMPTS, "seeds=2", "sampler.steps=4", out="")
    assert not {r["file"] for r in other} & {r["file"] for r in first}
    assert all(r["path"].is_file() for r in first)


def test_a_killed_command_leaves_what_it_drew(draw, monkeypatch):
    written, real = [], sampling.write

    def dies(picture, path, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(picture, path, *rest)

    monkeypatch.setattr(sampling, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        draw(PROMPTS, "seeds=2", "batch_size=4")
    monkeypatch.undo()
    _, said = draw(PROMPTS, "seeds=2", "batch_size=4")
    assert "draws 2 pictures, 2 are there already" in said


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "name", ["dpm_solver", "unipc", "euler", "euler_ancestral", "ddim", "ddpm"]
)
def test_batch_size_changes_nothing(draw, name):
    typed = [PROMPTS, "checkpoints=[base,8]", "seeds=2", f"sampler={name}", "sampler.steps=3"]
    one, _ = draw(*typed, "batch_size=1", out="one")
    four, _ = draw(*typed, "batch_size=4", out="four")
    assert [r["file"] for r in one] == [r["file"] for r in four]
    for a, b in zip(one, four, strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1


def test_lora_scales_lie_between_base_and_trained(draw, trained):
    records, _ = draw("prompt=a dot", "checkpoints=[base,8]", "lora_scale=[0,0.5,1]")
    base, none, half, full = map(pixels, records)
    assert (base == none).all()
    assert (half != none).any()
    assert (half != full).any()
    plain, _ = draw("prompt=a dot", "checkpoints=8", out="plain")
    assert (pixels(plain[0]) == full).all()
    assert plain[0]["file"] == records[3]["file"]
    assert records[2]["lora_scale"] == 0.5
    text = infotext.read(sampling.texts_of(records[2]["path"])["parameters"])
    assert text.values["LoRA scale"] == "0.5"
    with pytest.raises(UserError, match="method=full"):
        draw("prompt=a dot", "lora_scale=0.5", run="full")


def test_the_hash_of_the_exported_lora_is_the_one_of_web_interfaces(draw, trained):
    import hashlib

    [record], _ = draw("prompt=a dot")
    path = trained / "lora" / "finetune" / "export" / "lora.safetensors"
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    values = infotext.read(sampling.texts_of(record["path"])["parameters"]).values
    assert (
        values["Lora hashes"] == f"lora: {hashlib.sha256(content[8 + header :]).hexdigest()[:12]}"
    )
    assert load_file(path)


def test_a_full_training_is_its_own_model(draw):
    records, _ = draw("prompt=a dot", "checkpoints=[base,8]", run="full")
    names = [
        infotext.read(sampling.texts_of(r["path"])["parameters"]).values["Model"] for r in records
    ]
    assert names == ["tiny", "full-step-8"]
    assert (pixels(records[0]) != pixels(records[1])).any()


def test_from_a_picture_of_any_size(draw, tmp_path):
    Image.new("RGBA", (50, 30), (255, 0, 0, 128)).save(tmp_path / "start.png")
    typed = ["prompt=a dot", f"image={tmp_path / 'start.png'}", "width=24", "height=16"]
    [record], _ = draw(*typed, "strength=0.7")
    assert pixels(record).shape == (16, 24, 3)
    assert record["image"]["strength"] == 0.7
    values = infotext.read(sampling.texts_of(record["path"])["parameters"]).values
    assert values["Denoising strength"] == "0.7"
    (tmp_path / "start.png").write_bytes((tmp_path / "start.png").read_bytes()[:60])
    with pytest.raises(UserError, match="cannot be read as a picture"):
        draw(*typed)


def test_best_of_keeps_the_most_similar_of_its_candidates(draw, tmp_path, trained):
    clip = save_clip(tmp_path / "clip")
    typed = [PROMPTS, "seeds=2", "clip=custom", f"clip.name=local-dir:{clip}"]
    records, _ = draw(*typed, "best_of=3", "batch_size=2")
    for record in records:
        best = record["best_of"]
        assert len(set(best["seeds"])) == len(best["similarity"]) == 3
        assert record["seed"] == best["seeds"][int(np.argmax(best["similarity"]))]
    assert {r["best_of"]["seeds"][0] for r in records} == {0, 1}
    seeds = ",".join(str(r["seed"]) for r in records[:2])
    plain, _ = draw(PROMPTS, f"seeds=[{seeds}]", out="plain")  # each can be drawn alone again
    for i in range(2):
        assert np.abs(pixels(plain[i]) - pixels(records[i])).max() <= 1
    again, said = draw(*typed, "best_of=3", "batch_size=5")
    assert "already" in said
    assert again == records


def test_a_prompt_that_is_too_long_is_named(draw):
    records, said = draw('prompt=["a dot","abcdefghijk"]', "negative_prompt=abcdefg")
    assert records[0]["not_read"] == ""
    assert records[1]["not_read"].replace(" ", "") == "ghijk"
    assert "does not read the end of 'abcdefghijk': " in said
    assert "'abcdefg'" in said


def test_a_layer_or_another_base_that_is_not_there(draw, trained, tmp_path):
    with pytest.raises(UserError, match=r"has 1 layer up to .* Type clip_skip=1"):
        draw("prompt=a dot", "clip_skip=2")
    shutil.copytree(trained / "lora", trained / "moved")
    config = trained / "moved" / "finetune" / "config.yaml"
    other = save_pipeline(tmp_path / "tiny")
    with torch.no_grad():
        weights = other / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        tensors["conv_in.bias"] += 1
        from safetensors.torch import save_file

        save_file(tensors, weights)
    text = config.read_text()
    old = next(line for line in text.splitlines() if line.strip().startswith("path:"))
    config.write_text(text.replace(old, old.split("path:")[0] + f"path: {other}"))
    with pytest.raises(UserError, match=r"damaged|other weights|base model"):
        draw("prompt=a dot", run="moved")
    shutil.rmtree(trained / "moved")


def test_a_model_is_drawn_with_the_layer_it_was_trained_with(trained, deep_dir, draw):
    make = make_config.__wrapped__(trained, deep_dir)
    config = make("deep", method="lora", **{"model.clip_skip": 2, "train.samples": 4})
    run_training.__wrapped__()(config)
    records, _ = draw("prompt=a dot", run="deep", out="trained")
    said = infotext.read(sampling.texts_of(records[0]["path"])[infotext.CHUNK])
    assert (records[0]["clip_skip"], said.values["Clip skip"]) == (2, "2")
    for typed, same in (("clip_skip=2", True), ("clip_skip=1", False)):
        other, _ = draw("prompt=a dot", typed, run="deep", out=typed)
        assert (other[0]["file"] == records[0]["file"]) == same
        assert (np.abs(pixels(other[0]) - pixels(records[0])).max() == 0) == same


def test_hostile_prompts(draw, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("../../etc/passwd\n</script><img src=x>\n狐\n%s{0}\n" + "x" * 300 + "\n")
    records, _ = draw(f"prompt_file={path}")
    assert all(
        r["path"].parent == tmp_path / "out" / "step-00000008" or r["path"].is_file()
        for r in records
    )
    assert [r["source"]["line"] for r in records] == [1, 2, 3, 4, 5]
    assert all(len(r["path"].name) < 80 for r in records)


def test_others_at_work_are_said(draw, trained):
    with locked(trained / "lora" / "finetune"), pytest.raises(Busy):
        draw("prompt=a dot")


@pytest.mark.slow
def test_a_base_alone_from_the_command_line(tmp_path):
    pipeline = save_pipeline(tmp_path / "tiny")
    command = [
        *(sys.executable, "-m", "evaluate.sample", "prompt=a fox, red", f"out={tmp_path / 'out'}"),
        *("model=starter", f"model.path={pipeline}", "model.resolution=16", "sampler.steps=2"),
    ]
    for words in ("draws 1 pictures", "all 1 pictures"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    assert PIXELS in sampling.texts_of(next((tmp_path / "out" / "base").glob("*.png")))
