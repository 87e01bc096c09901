"""Who may read what a training writes: as the umask says, whichever library wrote it."""

from __future__ import annotations

import os
import stat

import pytest


@pytest.fixture(
    params=[0o027, *(pytest.param(mask, marks=pytest.mark.slow) for mask in (0o077, 0o002))]
)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_files_and_folders_have_the_permissions_that_the_umask_leaves(
    make_config, run_training, umask, method
):
    config = make_config(method=method, **{"checkpoint.keep": 1, "tracker": "tensorboard"})
    run_training(config)
    again = make_config("again", method=method, **{"method.init": config.run.name})
    run_training(again)
    allowed = {stat.S_IFREG: 0o666 & ~umask, stat.S_IFDIR: 0o777 & ~umask}
    found = [path for path in config.run.folder.parent.rglob("*") if not path.is_symlink()]
    assert len({path.suffix for path in found} & {".safetensors", ".npz", ".yaml", ".jsonl"}) == 4
    modes = {path: path.stat().st_mode for path in found}
    assert {
        str(path): oct(mode)
        for path, mode in modes.items()
        if stat.S_IMODE(mode) != allowed[stat.S_IFMT(mode)]
    } == {}
