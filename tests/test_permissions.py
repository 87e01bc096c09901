"""Who may read what the commands leave: as the umask says, whichever library wrote it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USUAL = {stat.S_IFREG: 0o666, stat.S_IFDIR: 0o777}
SCRIPT = """
import os, sys
from pathlib import Path
from tests import kills
os.umask(int(sys.argv[1], 8))
kills.make_inputs(Path(".."))
for stage in kills.STAGES:
    stage()
"""


@pytest.mark.slow
@pytest.mark.parametrize("umask", ["027", "077"])
def test_a_curated_trained_and_judged_run_is_as_readable_as_the_umask_says(tmp_path, umask):
    (tmp_path / "here").mkdir()
    subprocess.run(
        [sys.executable, "-c", SCRIPT, umask],
        cwd=tmp_path / "here",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    allowed = {kind: bits & ~int(umask, 8) for kind, bits in USUAL.items()}
    found = [path for path in (tmp_path / "here").rglob("*") if not path.is_symlink()]
    kinds = Counter(path.suffix for path in found)
    assert min(kinds[kind] for kind in (".tar", ".parquet", ".safetensors", ".npz", ".png")) > 0
    odd = {
        str(path): oct(mode)
        for path in found
        if stat.S_IMODE(mode := path.stat().st_mode) != allowed[stat.S_IFMT(mode)]
    }
    assert odd == {}
