"""Every method on every family of models: trained, cut, resumed, exported and judged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from curate.clip.config import ClipConfig
from curate.measures import decode as images
from curate.run.overrides import CONF
from curate.run.schema import to_dataclass
from evaluate import results, run
from evaluate.config import EvaluateConfig, GateConfig
from evaluate.measure_config import (
    CopyingConfig,
    DistributionConfig,
    GridConfig,
    ReconsiderConfig,
    RetentionConfig,
    RunConfig,
    SamplesConfig,
)
from finetune.checkpoint import list_checkpoints
from finetune.config import TrainConfig
from finetune.drawing.config import SamplerConfig
from finetune.export import export_checkpoint
from finetune.methods import Method
from finetune.opened_run import load_run
from tests.finetune import conftest
from tests.finetune.conftest import curate, digests, losses, picture, save_pipeline
from tests.finetune.models.conftest import save_xl_pipeline

ROOT = Path(__file__).resolve().parents[2]
Saved = Callable[[Path], Path]

FAMILIES: dict[str, tuple[Saved, int]] = {
    "starter": (lambda _: ROOT / "finetune" / "starter_ldm", 64),
    "sd15": (lambda folder: save_pipeline(folder, "epsilon"), 16),
    "sd21_v": (
        lambda folder: save_pipeline(
            folder, "v_prediction", use_linear_projection=True, attention_head_dim=(1, 2)
        ),
        16,
    ),
    "sdxl": (save_xl_pipeline, 32),
}
# Each method once, on a tiny pipeline of each kind; `make test-all` takes the others, and the built-in model.
ALWAYS = {
    ("full", "sd15"),
    ("lora", "sd15"),
    ("locon", "sd21_v"),
    ("dora", "sd15"),
    ("lokr", "sdxl"),
    ("loha", "sd15"),
    ("controlnet", "sd15"),
}


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], tuple[Path, int]]:
    """Where the pipeline of a family is, and the side of its pictures; written when it is first asked for."""
    folder, known = tmp_path_factory.mktemp("families"), {}

    def get(family: str) -> tuple[Path, int]:
        if family not in known:
            save, side = FAMILIES[family]
            known[family] = save(folder / family), side
        return known[family]

    return get


def _pairs() -> list:
    methods = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
    assert {method for method, _ in ALWAYS} == set(methods)
    assert {family for _, family in ALWAYS} == FAMILIES.keys() - {"starter"}
    return [
        pytest.param(
            method,
            family,
            id=f"{method}-{family}",
            marks=() if (method, family) in ALWAYS else pytest.mark.slow,
        )
        for method in methods
        for family in FAMILIES
    ]


@pytest.mark.parametrize(("method", "family"), _pairs())
def test_from_shards_to_verdict(
    method, family, saved, make_config, run_training, clip_dir, monkeypatch, tmp_path, capsys
):
    path, side = saved(family)
    monkeypatch.setattr(conftest, "picture", lambda seed: picture(seed, side))
    root = Path(make_config("unused").run.root)
    curate(
        root / "every" / "curate",
        {"train": 34, "val": 34},
        max_samples=40,
        beside=(lambda seed: _control(seed, side)) if method == "controlnet" else lambda _: {},
    )
    config = make_config("every", **{"optim.lr": 3e-3, "heldout.bins": 2})
    config.method = _chosen(method)
    config.model.path, config.model.resolution = str(path), side

    run_training(config)
    assert "largest difference" in capsys.readouterr().out
    whole = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    _cut(config, run_training, monkeypatch)
    run_training(config)
    assert "resuming after 16 samples" in capsys.readouterr().out
    assert (losses(config), digests(config)) == whole

    _judge(config, clip_dir)
    found = results.load(config.run.folder / "evaluate" / "report.json")
    assert [each.step for each in found.checkpoints] == [0, 4, 8]
    changes = [each.val.value for each in found.checkpoints]
    assert changes[0] == 0
    assert 0 not in changes[1:]
    for name in ("heldout_change", "retention_drift", "caption_gain_base"):
        assert found.metrics[name].value is not None, name

    opened = load_run(config.run.folder)
    first = list_checkpoints(config.folder)[1]
    folder, difference = export_checkpoint(opened, first)
    assert difference < 1e-3
    assert any(folder.iterdir())


def _control(seed: int, side: int) -> dict[str, bytes]:
    """The picture that a ControlNet follows; edges need an optional package."""
    return {"control": images.encode(picture(seed, side), "png", 95)}


def _chosen(name: str) -> Method:
    """What ``method=NAME`` is on the command line."""
    condition = ["method.condition=file"] if name == "controlnet" else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"method={name}", "run.name=every", *condition])
    return to_dataclass(cfg, TrainConfig).method


def _cut(config: TrainConfig, run_training, monkeypatch) -> None:
    """Train, and stop in the middle of the second checkpoint."""
    real = os.fsync

    def dying(descriptor: int) -> None:
        if list(config.folder.glob("checkpoints/.step-00000008*")):
            raise Killed
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(Killed):
            run_training(config)


def _judge(config: TrainConfig, clip_dir: Path) -> None:
    """As ``python -m evaluate`` does, with few pictures."""
    judged = EvaluateConfig(
        run=RunConfig(config.run.root, "every"),
        clip=ClipConfig(name=f"local-dir:{clip_dir}"),
        sampler=SamplerConfig("ddim", steps=2),
        gate=GateConfig({}),
        grid=GridConfig(items=34, bins=2, draws=1),
        samples=SamplesConfig(rows=2, clip_captions=4),
        copying=CopyingConfig(0),
        retention=RetentionConfig(34),
        reconsider=ReconsiderConfig(0),
        distribution=DistributionConfig("vae", captions=0),
    )
    run.evaluate_run(judged, lambda _: None)
