"""The command: what it says when asked for help or given nonsense, and how fast it says it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from curate.run.schema import UserError, to_dataclass
from finetune.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = str(ROOT / "finetune" / "train.py")
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_help_comes_without_anything_heavy(tmp_path):
    """Measured in processor time: the machine may be busy with something else."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = run(tmp_path, "--help")
    assert answer.returncode == 0
    for group in ("model", "method", "optim"):
        named = set(re.findall(rf"^ *{group}=(\S+)$", answer.stdout, re.M)[0].split("|"))
        assert named == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 4
    check = "import sys, finetune.train, finetune.doctor; print({'torch', 'diffusers', 'peft'} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run.name=nothing"], "python -m curate run.name=nothing"),
        (["method=loar"], "lora"),
        (["optim.lr=abc"], "optim.lr"),
        (["optim.batch_size=-4"], "optim.batch_size=-4 is out of range; accepted: > 0"),
        (["+optim.rate=1"], "rate"),
    ],
)
def test_mistakes_end_in_one_paragraph(tmp_path, arguments, message):
    answer = run(tmp_path, *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "override",
    [
        "optim.gradient_accumulation=3",
        "optim.schedule=sometimes",
        "optim.beta2=1",
        "optim.mixed_precision=fp8",
        "model.resolution=60",
        "model.prediction_type=flow",
        "method.alpha=0",
        "method.targets=[]",
        "train.caption_dropout=1.5",
        "ema.decay=1",
        "heldout.patience=0",
        "objective.weighting=min-snr",
        "objective.timesteps=normal",
        "objective.snr_gamma=0",
        "objective.noise_offset=-0.1",
        "checkpoint.keep=0",
        "checkpoint.keep=all",
        "checkpoint.keep=true",
        "log.every=0",
    ],
)
def test_values_out_of_range_name_their_key(override):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [override])
    with pytest.raises(UserError, match=override.partition("=")[0].replace(".", r"\.")):
        to_dataclass(cfg, TrainConfig)


@pytest.mark.parametrize("model", ["starter", "sd15", "sd21", "sd21_base", "sdxl"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_choice_composes(model, method):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_dataclass(compose("train", [f"model={model}", f"method={method}"]), TrainConfig)
    assert config.method.name == method


def test_a_path_that_is_no_pipeline_is_refused(tmp_path):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_dataclass(compose("train", [f"model.path={tmp_path}"]), TrainConfig)
    with pytest.raises(UserError, match=r"without model_index\.json"):
        config.model.location()
    config.model.path = "./nowhere"
    with pytest.raises(UserError, match="does not exist"):
        config.model.location()
    config.model.path = "owner/name"
    assert config.model.location() == "owner/name"
