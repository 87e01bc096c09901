"""A loss that is not finite on one process of several ends all of them, and names its own samples."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune import loop
from finetune.checkpoint import list_checkpoints
from finetune.training import Progress
from tests.finetune.conftest import command

ROOT = Path(__file__).resolve().parents[2]

# Process 1 gets NaN for the second sample of its share in update 6; both note what they train on.
SCRIPT = """
import json, os, sys
import torch
import finetune.loop as loop
from curate.run import cli
from finetune.train import main

kind, folder, rank, updates = sys.argv.pop(1), sys.argv.pop(1), os.environ["RANK"], 0
real_loss, real_update = loop.denoising_loss, loop.update

def update(run, batch):
    global updates
    updates += 1
    if updates == 6:
        with open(f"{folder}/{rank}.json", "w") as stream:
            json.dump(batch.keys, stream)
    return real_update(run, batch)

def loss(*arguments):
    found = real_loss(*arguments)
    if updates != 6 or rank != "1":
        return found
    if kind == "gradient":
        found.register_hook(lambda gradient: gradient * torch.nan)
        return found
    spoilt = torch.where(torch.arange(len(found)) == 1, torch.nan, 1.0)
    return found * spoilt if kind == "both" else found + (spoilt - 1)  # "loss": its gradient is finite

loop.update, loop.denoising_loss = update, loss
cli.run(main, "train")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "loss",  # process 0 sees nothing of it by itself
        "both",
        "gradient",
    ],
)
def test_all_processes_end_with_70_and_name_the_samples_of_the_one_where_it_arose(
    make_config, tmp_path, kind
):
    config = make_config(**{"heldout.items": 0, "optim.batch_size": 8, "train.samples": 64})
    (tmp_path / "poisoned.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "poisoned.py", kind, str(tmp_path), *command(config)],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            | {"RANK": rank, "LOCAL_RANK": rank, **launch},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [70, 70], said
    shares = [json.loads((tmp_path / f"{rank}.json").read_bytes()) for rank in "01"]
    expected = [shares[1][1]] if kind != "gradient" else [*shares[0], *shares[1]]
    for text in said:
        [line] = re.findall(r"NonFiniteLoss: (.*)", text)
        assert line.startswith("update 6 (after 40 samples)")
        assert (" on process 1 of 0 to 1" in line) == (kind != "gradient")
        assert re.findall(r"train-\d+", line) == expected
        assert "Traceback" in text
    assert [stored.step for stored in list_checkpoints(config.folder)] == [2, 4]


@pytest.mark.parametrize("scaler", [None, "fp16"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("losses", "norm", "expected"),
    [
        (([1.0, 2.0], [3.0, 4.0]), 1.0, None),
        (([1.0, 2.0], [3.0, math.nan]), math.nan, "on process 1 of 0 to 1: loss nan"),
        (([1.0, 2.0], [math.inf, 4.0]), 1.0, "on process 1 of 0 to 1: loss inf"),
        (([math.nan, 2.0], [3.0, math.nan]), math.nan, "on process 0, 1 of 0 to 1: loss nan"),
        (([1.0, 2.0], [3.0, 4.0]), math.inf, ": loss 1.5, gradient norm inf"),
    ],
)
def test_every_process_decides_the_same(monkeypatch, losses, norm, expected, rank, scaler):
    """The other process's part in reduce and gather is planted."""
    tensors = [torch.tensor(each) for each in losses]
    keys = [["a", "b"], ["c", "d"]]
    flags = [[float(not each.isfinite().all()), float(not math.isfinite(norm))] for each in tensors]
    monkeypatch.setattr(loop, "gather_object", lambda mine: _gathered(mine, rank, tensors, keys))
    accelerator = SimpleNamespace(
        num_processes=2,
        process_index=rank,
        scaler=scaler,
        reduce=lambda mine, _: mine + torch.tensor(flags[1 - rank]),
    )
    run = SimpleNamespace(accelerator=accelerator, progress=Progress(5, 20))
    call = partial(
        loop.refuse_non_finite, run, SimpleNamespace(keys=keys[rank]), tensors[rank], norm
    )
    if expected is None or (scaler and "gradient norm inf" in expected):
        call()
        return
    with pytest.raises(loop.NonFiniteLoss) as raised:
        call()
    said = str(raised.value)
    assert expected in said
    named = said.split("samples ")[-1].split(".")[0].split(", ")
    bad = [
        k
        for ks, ls in zip(keys, losses, strict=True)
        for k, x in zip(ks, ls, strict=True)
        if not math.isfinite(x)
    ]
    assert named == (bad or [*keys[0], *keys[1]])


def _gathered(mine, rank, tensors, keys):
    other = 1 - rank
    spoilt = [
        k for k, ok in zip(keys[other], tensors[other].isfinite().tolist(), strict=True) if not ok
    ]
    theirs = [(other, tensors[other].mean().item(), spoilt, keys[other])]
    return mine + theirs if rank == 0 else theirs + mine
