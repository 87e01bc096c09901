"""SIGKILL at random moments of a series of retrainings, of the parent or of all, changes nothing in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import retrain_kills

ROOT = Path(__file__).resolve().parents[2]
COUNT = int(os.environ.get("KILLS", "20"))


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    """``KILLS=100 pytest tests/workflows/test_retrain_kills.py`` kills a hundred times."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.retrain_kills", str(tmp_path), str(COUNT)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    assert sum(found["kills"].values()) >= COUNT
    assert abs(found["who"]["alone"] - found["who"]["tree"]) <= 1
    assert {"curate", "finetune", "evaluate"} <= found["kills"].keys()
    assert found["events"] == [
        ["promoted", "killed-0001", "killed-0001"],
        ["promoted", "killed-0002", "killed-0002"],
        ["rejected", "killed-0003", "killed-0002"],
    ]


@pytest.mark.slow
def test_of_two_at_once_one_works(tmp_path):
    retrain_kills.make_inputs(tmp_path)
    retrain_kills.show(tmp_path, retrain_kills.FIRST)
    here = tmp_path / "here"
    here.mkdir()
    first, second = (retrain_kills.start(here, "until=curate") for _ in range(2))
    codes = sorted(process.wait(300) for process in (first, second))
    said = (here / "said").read_text()
    assert codes == [0, 75], said
    assert "another process is at work in runs/killed-series: process " in said
    assert '"outcome": "busy"' in said
    assert retrain_kills.finished(here, "until=curate") == (0, 0)
