"""The list of neutral prompts, files in its place, and runs that hold the base's own data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.clip.config import ClipConfig
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from evaluate.measure import retention_inputs
from evaluate.measure_config import MeasureConfig, RetentionConfig, RunConfig
from finetune.drawing.config import SamplerConfig
from tests.finetune.conftest import curate

ROOT = Path(__file__).resolve().parents[3]


def settings(root: Path, **retention) -> MeasureConfig:
    return MeasureConfig(
        run=RunConfig(str(root), "judged"),
        clip=ClipConfig(name="ViT-B-32"),
        sampler=SamplerConfig("ddim"),
        retention=RetentionConfig(**retention),
    )


def prompts(**retention) -> list[str]:
    return retention_inputs.neutral_prompts(RetentionConfig(**retention))


def test_the_built_in_prompts_are_short_and_differ():
    found = prompts(items=64)
    assert len(set(found)) == 64
    assert all(1 <= len(prompt.split()) <= 6 and prompt.islower() for prompt in found)
    assert prompts(items=5) == found[:5]
    assert prompts(items=0) == []


def test_a_file_of_prompts_is_read_as_it_is_meant(tmp_path):
    file = tmp_path / "my prompts.txt"
    file.write_bytes("\ufeffa  skull\r\n\r\n\ta ribcage \n a hand".encode())
    assert prompts(prompts=str(file)) == ["a skull", "a ribcage", "a hand"]
    assert prompts(prompts=str(file), items=2) == ["a skull", "a ribcage"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there"),
        (b"", "has no prompts"),
        (b" \n\n", "has no prompts"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"a cat\na dog\na  cat\n", "has the prompt 'a cat' more than once"),
    ],
)
def test_a_wrong_file_of_prompts_is_refused(tmp_path, content, said):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        prompts(prompts=str(file))
    assert f"retention.prompts={file}" in str(caught.value)


def test_a_folder_is_no_file_of_prompts(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        prompts(prompts=str(tmp_path))


def test_more_prompts_than_there_are_is_refused():
    with pytest.raises(
        UserError, match=r"the built-in list has 64 prompts. Type retention.items=64"
    ):
        prompts(items=65)


@pytest.mark.parametrize("ignored", [{"prompts": "x.txt"}, {"run": "photos"}])
def test_settings_without_effect_are_refused(ignored):
    with pytest.raises(UserError, match=r"has no effect beside retention\.items=0"):
        RetentionConfig(items=0, **ignored)


def test_the_run_of_the_bases_data_is_found(tmp_path):
    curate(tmp_path / "judged" / "curate", {"train": 4, "val": 2})
    curate(tmp_path / "photos" / "curate", {"train": 2, "val": 3})
    found = retention_inputs.settle(settings(tmp_path, run="photos"))
    assert found == [tmp_path / "photos" / "curate"]
    assert retention_inputs.settle(settings(tmp_path)) == []


def test_a_run_that_cannot_serve_is_refused(tmp_path):
    for name in ("judged", "copied"):
        curate(tmp_path / name / "curate", {"train": 4, "val": 2})
    (tmp_path / "started" / "curate").mkdir(parents=True)
    with pytest.raises(UserError, match=r"retention\.run=copie is no curated run.*run=copied"):
        retention_inputs.settle(settings(tmp_path, run="copie"))
    with pytest.raises(UserError, match=r"retention\.run=started is no curated run"):
        retention_inputs.settle(settings(tmp_path, run="started"))
    for name in ("judged", "copied"):
        with pytest.raises(UserError, match="holds the pictures that judged was trained on"):
            retention_inputs.settle(settings(tmp_path, run=name))


@pytest.mark.parametrize(
    ("counts", "side"),
    [
        ({"train": 50, "val": 32, "test": 40}, "val"),
        ({"train": 50, "val": 31, "test": 40}, "test"),
        ({"train": 50, "val": 31, "test": 31}, "train"),
        ({"train": 3, "val": 5}, "val"),
        ({"train": 9}, "train"),
    ],
)
def test_the_side_with_enough_pictures_is_measured(tmp_path, counts, side):
    curate(tmp_path, counts)
    assert retention_inputs.side_of(read_manifest(tmp_path)) == side


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retention.run=photo"], ["retention.run=photo is no curated run", "photos"]),
        (["retention.prompts=no such file.txt"], ["no such file.txt is not there"]),
        (["retention.items=-1"], ["retention.items=-1", "retention.items=1"]),
        (["retention.items=0", "retention.run=photos"], ["has no effect"]),
    ],
)
def test_mistakes_end_early_in_a_paragraph(tmp_path, arguments, said):
    for name in ("judged", "photos"):
        curate(tmp_path / "runs" / name / "curate", {"train": 4 + len(name), "val": 2})
    (tmp_path / "runs" / "judged" / "finetune" / "checkpoints" / "step-00000001").mkdir(
        parents=True
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "evaluate", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert time.monotonic() - started < 20  # of a machine that is busy; alone it is one
    assert "Traceback" not in done.stderr
    assert all(part in done.stderr for part in said), done.stderr
