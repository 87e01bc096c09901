"""SIGKILL at ten random moments of the real command: the next run ends with the same bytes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 10
IMAGES = 160


@pytest.mark.slow
def test_ten_kills_and_the_bytes_are_the_same(tiny_clip, make_pictures, bytes_of, tmp_path):
    pictures = make_pictures(tmp_path / "pictures", IMAGES)

    def command(root):
        return [
            sys.executable, "-m", "curate", "dataset=folder", f"dataset.root={pictures}",
            "run.name=small", f"run.root={root}", "clip=custom",
            f"clip.name=local-dir:{tiny_clip}", "clip.batch_size=8", "clip.device=cpu",
            "filters.clip_similarity.fraction=0.75", "annotate.images_per_part=4",
            "shards.max_samples=4",
        ]  # fmt: skip

    def files(root):
        return {path for path in root.rglob("*") if path.is_file()}

    subprocess.run(command(tmp_path / "straight"), cwd=REPOSITORY, check=True, capture_output=True)
    whole = bytes_of(tmp_path / "straight" / "small" / "curate")
    killed, ended, seed = tmp_path / "killed", 0, random.randrange(2**32)
    draw = random.Random(seed)
    for number in range(KILLS):
        before = files(killed)
        wait_for = draw.randint(1, max(1, 2 * len(whole) // KILLS))
        process = subprocess.Popen(
            command(killed),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(files(killed) - before) < wait_for:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        ended += process.wait() == 0
        finished = bytes_of(killed / "small" / "curate")
        finished = {
            name: content
            for name, content in finished.items()
            if ".part" not in name and not name.startswith("tasks/")  # nobody reads what is there
        }
        assert finished.items() <= whole.items(), f"kill {number}, seed {seed}"
    assert ended < KILLS / 2, f"most runs ended before they were killed, seed {seed}"
    subprocess.run(command(killed), cwd=REPOSITORY, check=True, capture_output=True)
    assert bytes_of(killed / "small" / "curate") == whole, f"seed {seed}"
