"""``gate.against``: refused early where the runs cannot be compared, a rule of the gate where they can."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from curate.clip.config import ClipConfig
from curate.run import overrides
from curate.run.overrides import CONF
from curate.run.schema import UserError, to_dataclass
from evaluate import comparison, results, run
from evaluate.config import EvaluateConfig, GateConfig, GateRule, refuse_ignored
from evaluate.judged_runs import against
from evaluate.judged_runs.judged import open_judged
from evaluate.measure_config import GridConfig, RunConfig, SamplerConfig, SamplesConfig
from tests.evaluate.planted import ORIGIN, Planted, rewrite

RULE = GateRule(metric="against_change", op="<", threshold=0.01, use="ci_high")


@pytest.fixture
def runs(tmp_path, results) -> Planted:
    found = Planted(tmp_path, results)
    found.curate("data")
    return found


def opened(runs, name="old", of="new", precision="no", **grid):
    """As an evaluation of ``of`` opens it, which has no report yet."""
    finetune = runs.root / of / "finetune"
    finetune.mkdir(parents=True, exist_ok=True)
    (finetune / "config.yaml").write_text("data:\n  run: data\n")
    config = SimpleNamespace(
        run=RunConfig(str(runs.root), of),
        grid=GridConfig(**{"bins": 3, "draws": 2, **grid}),
        precision=precision,
    )
    return against.opened(name, config)  # type: ignore[arg-type]


def test_none_is_named(runs):
    assert opened(runs, None) is None


def test_the_held_out_pictures_of_both(runs):
    runs.run("old", keys={"val": [f"val-{i:03d}" for i in range(35)]})
    found = opened(runs)
    assert len(found.pictures["val"].keys) == 35
    assert found.instrument() == {"against_change": "against old, step 20"}


def test_what_cannot_be_compared_is_refused(runs):
    runs.run("old")
    with pytest.raises(UserError, match=r"gate\.against=ald is no judged run; .* Did you mean old"):
        opened(runs, "ald")
    with pytest.raises(UserError) as refused:
        opened(runs, bins=10, seed=3)
    assert "grid.bins is 3 in old and 10 in new" in str(refused.value)
    assert "python -m evaluate run.name=new" in str(refused.value)
    assert "grid.bins=3 grid.seed=0" in str(refused.value)
    with pytest.raises(UserError, match="precision is no in old and bf16 in new"):
        opened(runs, precision="bf16")
    with pytest.raises(UserError, match=r"gate\.against=old is the run that is judged"):
        opened(runs, of="old")
    second = runs.curate("second")
    rewrite(second, "train", lambda rows: rows.assign(sha256=[f"{6 + i:064x}" for i in range(6)]))
    runs.run("leaking", data="second")
    with pytest.raises(UserError, match="leaking was trained on 6 of the 40 held-out pictures"):
        opened(runs, "leaking")


def test_losses_in_other_units_are_refused(runs):
    runs.run("old")
    found = opened(runs)
    found.refuse_other_units(runs.root / "new", ORIGIN)
    with pytest.raises(UserError, match="another VAE or at another"):
        found.refuse_other_units(runs.root / "new", {**ORIGIN, "latents": "x" * 64})


def test_the_rule_is_there_only_with_a_run():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        without = to_dataclass(compose("evaluate", overrides=["run.name=x"]), EvaluateConfig)
        given = ["run.name=x", "gate.against=old", "gate.rules.not_worse_than_run.threshold=0.02"]
        with_run = to_dataclass(compose("evaluate", overrides=given), EvaluateConfig)
    assert "not_worse_than_run" not in without.gate.rules
    assert with_run.gate.rules["not_worse_than_run"].threshold == 0.02


def test_a_setting_of_the_rule_without_a_run_is_refused(monkeypatch):
    given = ["run.name=x", "gate.rules.not_worse_than_run.threshold=0.02"]
    monkeypatch.setattr(overrides, "_arguments", [given])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", overrides=given)
        with pytest.raises(
            UserError, match=r"has no effect without a run to compare with; type gate\.against=RUN"
        ):
            refuse_ignored(cfg)
        refuse_ignored(compose("evaluate", overrides=[*given, "gate.against=old"]))


def test_a_run_is_judged_against_another(make_run, make_config, run_training, clip_dir):
    """Two trainings on one curation, the second ten times slower: worse by what compare says."""
    fast = make_run("fast")
    slow = make_config(
        "slow", method="lora", **{"data.run": "fast", "train.samples": 64, "optim.lr": 1e-5}
    )
    run_training(slow)

    def config(trained, gate):
        return EvaluateConfig(
            run=RunConfig(trained.run.root, trained.run.name),
            clip=ClipConfig(name=f"local-dir:{clip_dir}"),
            sampler=SamplerConfig("ddim", steps=2),
            gate=gate,
            grid=GridConfig(items=34, bins=3, draws=1),
            samples=SamplesConfig(rows=1, clip_captions=0),
        )

    plain = GateConfig({"not_worse": replace(RULE)})
    assert plain.rules == {}
    run.evaluate_run(config(fast, plain), print)
    said: list[str] = []
    gate = GateConfig({"not_worse": replace(RULE, threshold=-0.5)}, against="fast")
    assert run.evaluate_run(config(slow, gate), said.append) == 1
    folders = [trained.run.folder for trained in (fast, slow)]
    found = results.load(folders[1] / "evaluate" / "report.json")
    (check,) = found.checks
    assert check.status == "failed"
    assert "against fast, step" in check.why
    assert any("Against another run, held-out loss" in line for line in said)
    judged = [open_judged(folder) for folder in folders]
    compared = comparison.compare(judged, comparison.refuse(judged))
    line = compared.pairs[0].lines[0]
    metric = found.metrics["against_change"]
    assert metric.value == pytest.approx(line.difference.value, rel=1e-5)
    assert metric.high == pytest.approx(line.difference.high, rel=1e-5)
    assert compared.pairs[0].word == "worse"
    assert "optim.lr" in compared.configuration
