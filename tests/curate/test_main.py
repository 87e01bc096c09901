"""The command ``python -m curate``: mistakes end early, a killed run ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def command(*overrides, check=None):
    result = subprocess.run(
        [sys.executable, "-m", "curate", *overrides],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if check is not None:
        assert result.returncode == check, result.stderr
    return result


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["datset=coco"], "did you mean dataset=coco"),
        (
            ["dataset=openmoji", "filters.clip_similarity.minimum=abc"],
            "filters.clip_similarity.minimum",
        ),
        (
            ["dataset=openmoji", "filters.clip_similarity.minimum=2"],
            "filters.clip_similarity.minimum=2",
        ),
        (["dataset=coco", "dataset.root=nowhere"], "put into nowhere: annotations/"),
        (["dataset=coco", "dataset.size_px=3"], "size_px"),
        (["dataset=openmoji", "clip=custom", "clip.name=ViT-B32"], "near: ViT-B-32"),
        (["+typo=1"], "typo"),
        (["dataset=openmoji", "dry_run=0"], "dry_run=0"),
        (
            ["dataset=openmoji", "filters.clip_similarity.minimum=0.28"],
            "made for ViT-B-32-quickgelu openai",
        ),
    ],
)
def test_mistakes_end_early_with_one_paragraph(overrides, says, tmp_path):
    start = time.monotonic()
    result = command(*overrides, f"run.root={tmp_path}", check=2)
    assert time.monotonic() - start < 10  # 3 on an idle machine
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_of_a_launch_works(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    done = command("dataset=folder", "dataset.root=nowhere", f"run.root={tmp_path}", check=0)
    assert not any(tmp_path.iterdir()), done.stdout


def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(
    tiny_clip, pictures, bytes_of, tmp_path
):
    def overrides(root):
        return [
            "dataset=folder", f"dataset.root={pictures}", "run.name=small", f"run.root={root}",
            "clip=custom", f"clip.name=local-dir:{tiny_clip}", "clip.batch_size=8",
            "clip.device=cpu", "filters.clip_similarity.fraction=0.75",
            "annotate.images_per_part=4", "shards.max_samples=4",
        ]  # fmt: skip

    command(*overrides(tmp_path / "straight"), check=0)
    killed, draw = tmp_path / "killed", random.Random(os.getpid())
    curate_dir = killed / "small" / "curate"
    for kind in ("annotations/*.parquet", "shards/*/*.tar", "ledger/*"):
        before = set(curate_dir.glob(kind))
        process = subprocess.Popen(
            [sys.executable, "-m", "curate", *overrides(killed)],
            cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not set(curate_dir.glob(kind)) - before:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    command(*overrides(killed), check=0)
    assert bytes_of(curate_dir) == bytes_of(tmp_path / "straight" / "small" / "curate")
