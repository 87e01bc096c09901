"""What README.md says to type works: its Python on a tiny folder, its commands against the schemas."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image, ImageDraw

from curate.pipeline.config import CurateConfig
from curate.run.overrides import CONF, is_override, prepare
from curate.run.schema import to_dataclass
from evaluate.config import EvaluateConfig
from evaluate.sample_config import SampleConfig
from finetune.config import TrainConfig
from finetune.config.retention import ExportConfig, RegulariseConfig, ReplayConfig

README = (CONF.parent / "README.md").read_text("utf-8")
COMMANDS = {
    "python -m curate ": ("curate", CurateConfig),
    "accelerate launch finetune/train.py ": ("train", TrainConfig),
    "python -m evaluate.sample ": ("sample", SampleConfig),
    "python -m evaluate ": ("evaluate", EvaluateConfig),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A red circle, and a blue square that is called a banana."""
    for name, caption, colour in (("circle", "red circle", "red"), ("square", "banana", "blue")):
        picture = Image.new("RGB", (64, 64), "white")
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if name == "circle" else draw.rectangle)((8, 8, 56, 56), fill=colour)
        picture.save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    return tmp_path


def test_the_python_keeps_the_right_pair_of_a_folder(folder):
    (block,) = (block for block in blocks("python") if "load_clip" in block)
    assert '"my/pictures"' in block
    names: dict = {}
    exec(block.replace("my/pictures", str(folder)), names)
    assert names["pairs"]["caption"].tolist() == ["red circle"]


@pytest.mark.parametrize("block", blocks("python"), ids=range(len(blocks("python"))))
def test_the_python_names_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("curate"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
    for path in re.findall(r'from_pretrained\("(finetune/\w+)"\)', block):
        assert (CONF.parent / path / "model_index.json").is_file()


def typed() -> list[str]:
    """The commands of the shell blocks, each on one line."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(tuple(COMMANDS))]


@pytest.mark.parametrize("line", typed())
def test_the_commands_compose(line):
    start = next(start for start in COMMANDS if line.startswith(start))
    section, schema = COMMANDS[start]
    overrides = [
        word for word in shlex.split(line[len(start) :], comments=True) if is_override(word)
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert to_dataclass(compose(section, overrides=prepare(overrides)), schema)


KEYS = [
    f"{group}.{each.name}"
    for group, kind in (
        ("export", ExportConfig),
        ("replay", ReplayConfig),
        ("regularise", RegulariseConfig),
    )
    for each in fields(kind)
]


@pytest.mark.parametrize("key", KEYS)
def test_the_settings_against_forgetting_are_explained(key):
    assert f"`{key}" in README or f" {key}=" in README
    assert f" {key}=" in (CONF / "train.yaml").read_text("utf-8")


def test_there_are_commands_and_python():
    assert len(typed()) >= 3
    assert len(blocks("python")) >= 4
