"""SIGKILL at random moments of curation, training and evaluation changes no byte in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNT = int(os.environ.get("KILLS", "30"))


@pytest.mark.slow
def test_kills_change_no_byte(tmp_path):
    """``KILLS=100 pytest tests/test_kills.py`` kills a hundred times; `tests.kills` takes a seed, too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(tmp_path), str(COUNT)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert sum(kills.values()) >= COUNT
    assert min(kills.values()) >= COUNT // 10
