"""Prompt following is measured with the curation's CLIP unless another is chosen, and reports name it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from curate.clip import availability
from curate.clip.config import ClipConfig
from curate.pipeline.config import CurateConfig
from curate.run.overrides import CONF
from curate.run.provenance import write_config
from curate.run.schema import UserError, to_dataclass
from evaluate import evaluators, gate, judging_clip
from evaluate.config import EvaluateConfig, GateConfig, GateRule
from evaluate.results import Metric
from finetune.config import DataConfig, TrainConfig


@pytest.fixture
def run_dir(tmp_path):
    """Of a training on the curation of another run, which OpenAI's CLIP scored in half precision."""
    stored = {
        tmp_path / "mine/finetune/config.yaml": {"data": {"run": "curated"}},
        tmp_path / "curated/curate/config.yaml": {
            "clip": {"name": "ViT-B-32-quickgelu", "pretrained": "openai", "precision": "bf16"}
        },
    }
    for path, content in stored.items():
        path.parent.mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(content), path)
    return tmp_path / "mine"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(availability.hub, "is_reachable", lambda: True)


def clip_of(*overrides: str) -> ClipConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_dataclass(compose("evaluate", overrides=list(overrides)), EvaluateConfig).clip


def test_the_default_is_the_curations(run_dir):
    found = judging_clip.settle(clip_of("clip.batch_size=7"), run_dir, needed=True)
    assert found == ClipConfig("ViT-B-32-quickgelu", "openai", batch_size=7)
    assert judging_clip.label_of_curation(run_dir.parent / "curated/curate") == (
        "ViT-B-32-quickgelu openai"
    )


def test_a_named_one_wins(run_dir, tmp_path):
    starter = clip_of("clip=starter")
    assert judging_clip.settle(starter, run_dir, needed=True) == starter
    (tmp_path / "weights.pt").touch()
    found = judging_clip.settle(
        clip_of(f"clip.pretrained={tmp_path}/weights.pt"), run_dir, needed=True
    )
    assert (found.name, found.pretrained) == ("ViT-B-32-quickgelu", f"{tmp_path}/weights.pt")


def test_a_curation_without_one_says_what_to_type(run_dir):
    (run_dir.parent / "curated/curate/config.yaml").unlink()
    assert judging_clip.settle(clip_of(), run_dir, needed=False) == clip_of()
    with pytest.raises(UserError, match=r"does not name a CLIP.*clip=vit_b32_openai"):
        judging_clip.settle(clip_of(), run_dir, needed=True)


def test_a_damaged_configuration_does_not_stand_for_a_curation_of_its_own(run_dir):
    """It says on which curation the training stands, and so with which CLIP to measure."""
    (run_dir / "finetune/checkpoints/step-00000001").mkdir(parents=True)
    write_config(run_dir / "finetune/config.yaml", TrainConfig(data=DataConfig("curated")))
    path = run_dir / "finetune/config.yaml"
    path.write_text(path.read_text().replace("run: curated", "run: cursted"))
    arguments = ["run.name=mine", f"run.root={run_dir.parent}"]
    done = subprocess.run(
        [sys.executable, "-m", "evaluate", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path} is damaged, or was edited; train with")


def test_a_damaged_curation_does_not_name_another_clip(run_dir):
    path = run_dir.parent / "curated/curate/config.yaml"
    write_config(path, CurateConfig(clip=ClipConfig("ViT-B-32-quickgelu", "openai")))
    path.write_text(path.read_text().replace("openai", "opdnai"))
    for ask in (
        lambda: judging_clip.settle(clip_of(), run_dir, needed=True),
        lambda: judging_clip.label_of_curation(path.parent),
    ):
        with pytest.raises(UserError, match=r"config.yaml is damaged.*python -m curate"):
            ask()


def test_weights_out_of_reach_are_refused_with_keys_of_this_command(run_dir, monkeypatch):
    monkeypatch.setattr(availability.hub, "is_reachable", lambda: False)
    monkeypatch.setattr(availability, "_anything_cached", lambda: False)
    with pytest.raises(UserError, match=r"samples\.clip_captions=0") as raised:
        judging_clip.settle(clip_of(), run_dir, needed=True)
    assert "filters=" not in str(raised.value)


def test_the_gate_names_it_beside_its_rule():
    rule = GateRule("clip_change", ">", 0.0, use="ci_low")
    config = GateConfig({"follows": rule})
    said = evaluators.instruments(
        EvaluateConfig(clip=ClipConfig("ViT-B-32", "openai"), gate=config)
    )
    (check,) = gate.check_all(config, {"clip_change": Metric(0.2, -0.1, 0.5, 64)}, "", said)
    assert check.why == "the interval contains the threshold; measured with ViT-B-32 openai"
    (check,) = gate.check_all(config, {"clip_change": Metric(reason="8 captions")}, "", said)
    assert check.why == "8 captions"
