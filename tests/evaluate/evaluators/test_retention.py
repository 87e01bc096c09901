"""What the report says of the base's abilities, from numbers alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from curate.run.overrides import CONF
from curate.run.schema import to_dataclass
from evaluate import gate
from evaluate.advice import keep_more
from evaluate.config import EvaluateConfig
from evaluate.evaluators import retention
from evaluate.outputs import report
from evaluate.results import Metric, Picture, Results, RetentionPoint, RetentionResult
from finetune.config import ModelConfig, RunConfig, TrainConfig
from finetune.methods.full import Full
from finetune.methods.lora import Lora
from tests.evaluate.conftest import HOSTILE

ROSE = Metric(0.38, 0.33, 0.43, 48, 48, "base pictures")
NONE = Metric(0.0, 0.0, 0.0, 48, 48, "base pictures")


@pytest.fixture
def measured(results: Results) -> Results:
    files = {"base": "retention/base/a.png", "step-00000450": "retention/step-00000450/a.png"}
    values = {
        "retention_loss_change": ROSE,
        "retention_loss_change_exported": ROSE,
        "retention_loss_change_last": Metric(0.57, 0.5, 0.64, 48, 48),
        "retention_caption_gain_base": Metric(0.78, 0.7, 0.86, 48, 48),
        "retention_caption_gain_kept": Metric(0.52, 0.45, 0.59, 48, 48),
        "retention_caption_gain_change": Metric(-0.26, -0.31, -0.21, 48, 48),
        "retention_data_change": Metric(reason="no run"),
        "retention_drift": Metric(0.61, 0.57, 0.65, 48, 48),
    }
    return replace(
        results,
        metrics=results.metrics | values,
        retention=RetentionResult(
            points=(
                RetentionPoint(0, 0, NONE),
                RetentionPoint(450, 3600, ROSE),
                RetentionPoint(900, 7200, Metric(reason="not a finite number")),
            ),
            pictures=(Picture("neutral-1", HOSTILE, files),),
        ),
    )


def section(found: Results) -> str:
    (only,) = retention.sections(found)
    return str(only.body)


def test_the_finding_says_what_was_measured(measured: Results):
    said = section(measured)
    assert "On 48 pictures that the base drew itself for neutral prompts" in said
    assert "the loss changed by +38.0 % [+33.0, +43.0] from the base to step 450" in said
    assert "changed by -26.0 % [-31.0, -21.0] of the base" in said
    assert "differ from the base&#39;s by 0.61 of the distance" in said
    assert "the base&#39;s own data" not in said
    data = replace(measured, metrics=measured.metrics | {"retention_data_change": ROSE})
    assert "On 48 pictures of the base&#39;s own data" in section(data)


def test_where_the_base_is_kept_nothing_is_lost(measured: Results):
    verdict = replace(measured.verdict, kept=0, best=0)
    said = section(replace(measured, verdict=verdict))
    assert "The base is kept, so nothing was lost." in said
    assert "+57.0 % [+50.0, +64.0] from the base to the last checkpoint" in said
    diverged = measured.metrics | {"retention_loss_change_last": Metric(reason="not finite")}
    said = section(replace(measured, verdict=verdict, metrics=diverged))
    assert "so nothing was lost. On" not in said


def test_what_was_not_measured_says_so(measured: Results, results: Results):
    left_out = {"retention_loss_change": Metric(reason=retention.LEFT_OUT)}
    absent = replace(measured, metrics=measured.metrics | left_out, retention=None)
    assert "Not measured: left out by retention.items=0." in section(absent)
    assert "Not measured" in section(results)  # of a version that did not know it


def test_its_cost_is_judged_as_the_gate_judges_it(measured: Results):
    def state(metric: Metric) -> list[str]:
        found = retention.findings({retention.FORGETTING: metric})
        return [finding.state for finding in found]

    (said,) = retention.findings({retention.FORGETTING: Metric(0.2, 0.15, 0.24, 48, 48)})
    assert "rose by no more than 25 %: +20.0 % [+15.0, +24.0]." in said.text
    assert state(ROSE) == ["bad"]
    assert state(Metric(0.27, 0.2, 0.34, 48, 48)) == ["warn"]
    assert state(Metric(0.2, 0.15, 0.26, 48, 48)) == ["info"]
    assert state(Metric(0.2, 0.15, 0.24, 48, 48)) == ["good"]
    assert state(Metric(reason="left out")) == []
    assert _check(ROSE) == "warned"
    assert _check(Metric(0.27, 0.2, 0.34, 48, 48)) == "passed"
    assert _check(Metric(reason="left out")) == "skipped"


def _check(metric: Metric) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = to_dataclass(compose("evaluate"), EvaluateConfig)
    rule = asked.gate.rules["keeps_what_the_base_could"]
    assert rule.threshold == retention.LARGEST_RISE
    asked.gate.rules = {"only": rule}
    (check,) = gate.check_all(asked.gate, {retention.EXPORTED: metric}, "improving")
    return check.status


def test_neutral_pictures_are_in_the_page_and_prompts_stay_text(measured: Results, tmp_path):
    from PIL import Image

    assert measured.retention is not None
    for picture in (*measured.pictures, *measured.retention.pictures):
        for name in picture.files.values():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(tmp_path / name)
    real = {picture.key: Image.new("RGB", (16, 16)) for picture in measured.pictures}
    html = report.render(measured, tmp_path, real, None)
    assert 'id="neutral"' in html
    assert 'id="retention"' in html
    assert "<script" not in html
    start = html.index('id="neutral"')
    strip = html[start : html.index("</section>", start)]
    assert strip.count("data:image/webp") >= 2
    assert "Kept (step 450)" in strip
    assert "Last" not in strip


@pytest.mark.parametrize(
    ("method", "fewer"), [(Lora(rank=16), "method.rank=8"), (Full(), "method=lora")]
)
def test_advice_can_be_typed(method: Any, fewer: str):
    config = TrainConfig(
        run=RunConfig(name="mine"), model=ModelConfig(path="x", resolution=64), method=method
    )
    said = keep_more(config)
    assert said.endswith("run.name=mine-2 data.run=mine optim.lr=3.3e-05")
    assert "train.samples=12000" in said
    assert fewer in said


def test_kept_and_last_are_measured_by_their_rows(monkeypatch):
    class Noted:
        def __getattr__(self, name: str) -> Any:
            return lambda row: Metric(float(row))

    names = [name for name in retention.EVALUATOR.metrics if "caption_gain" in name]
    monkeypatch.setattr(
        retention, "caption_gains", lambda _, kept: dict.fromkeys(names, Metric(10.0 + kept))
    )
    evaluation: Any = SimpleNamespace(
        retention=Noted(), kept=2, exported=1, evidence=SimpleNamespace(last=3)
    )
    found = {name: metric.value for name, metric in retention.measure(evaluation)}
    assert found == {
        "retention_loss_change": 2,
        "retention_loss_change_exported": 1,
        "retention_loss_change_last": 3,
        **dict.fromkeys(names, 12),
        "retention_data_change": 2,
        "retention_drift": 2,
    }
