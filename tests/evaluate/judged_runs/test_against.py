"""``gate.against``: refused early where the runs cannot be compared, a rule of the gate where they can."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir

from curate.clip.config import ClipConfig
from curate.run import overrides
from curate.run.manifest import read_manifest, write_manifest
from curate.run.overrides import CONF
from curate.run.schema import UserError, to_dataclass
from evaluate import comparison, results, run
from evaluate.config import EvaluateConfig, GateConfig, GateRule, refuse_ignored
from evaluate.judged_runs import comparable
from evaluate.judged_runs.judged import open_judged
from evaluate.measure_config import GridConfig, RunConfig, SamplesConfig
from finetune import trained_on as trained_on_table
from finetune.drawing.config import SamplerConfig
from tests.evaluate.planted import ORIGIN, Planted, opened_against, rewrite

RULE = GateRule(metric="against_change", op="<", threshold=0.01, use="ci_high")


@pytest.fixture
def runs(tmp_path, results) -> Planted:
    found = Planted(tmp_path, results)
    found.curate("data")
    return found


def test_none_is_named(runs):
    assert opened_against(runs, None) is None


def test_the_held_out_pictures_of_both(runs):
    runs.run("old", keys={"val": [f"val-{i:03d}" for i in range(35)]})
    found = opened_against(runs)
    assert len(found.pictures["val"].keys) == 35
    assert found.instrument("val") == {"against_change": "against old, step 20"}


def test_what_cannot_be_compared_is_refused(runs):
    runs.run("old")
    with pytest.raises(UserError, match=r"gate\.against=ald is no judged run; .* Did you mean old"):
        opened_against(runs, "ald")
    with pytest.raises(UserError) as refused:
        opened_against(runs, bins=10, seed=3)
    assert "grid.bins is 3 in old and 10 in new" in str(refused.value)
    assert "python -m evaluate run.name=new" in str(refused.value)
    assert "grid.bins=3 grid.seed=0" in str(refused.value)
    with pytest.raises(UserError, match="precision is no in old and bf16 in new"):
        opened_against(runs, precision="bf16")
    with pytest.raises(UserError, match=r"gate\.against=old is the run that is judged"):
        opened_against(runs, of="old")


def trained_on(runs, count, val=40):
    """A run on another curation, which trains on as many held-out pictures of the first."""
    second = runs.curate("second", train=20, val=val)
    files = [f"{20 + i:064x}" for i in range(count)] + ["f" * 64] * (20 - count)
    rewrite(second, "train", lambda rows: rows.assign(sha256=files, duplicate_group=rows["key"]))
    held_out = {f"val-{i:03d}": f"{20 + i:064x}" for i in range(val)}

    def same(rows):
        files = rows["key"].map(held_out)
        return rows.assign(sha256=files, duplicate_group=rows["key"], caption=rows["key"])

    for folder in (second, runs.root / "data" / "curate"):
        rewrite(folder, "val", same)
    return runs.run("leaking", data="second", keys={"val": sorted(held_out)})


def test_pictures_near_a_training_picture_are_left_out_and_counted(runs):
    trained_on(runs, 3)
    joined = {"val-000": "both", "val-010": "both"}
    rewrite(
        runs.root / "data" / "curate",
        "val",
        lambda rows: rows.assign(
            duplicate_group=rows["key"].map(joined).fillna(rows["duplicate_group"])
        ),
    )
    found = opened_against(runs, "leaking")
    left_out = {"val-000", "val-001", "val-002", "val-010"}  # the last with its group
    assert set(found.pictures["val"].keys) == {f"val-{i:03d}" for i in range(40)} - left_out
    assert found.pictures["val"].left_out == {comparable.TRAINED_ON: 4}
    assert len(found.pictures["val"].captions) == len(found.pictures["val"].groups) == 36
    why = "against leaking, step 20, without 4 pictures near one that a run was trained on"
    assert found.instrument("val") == {"against_change": why}
    assert found.instrument("") == {"against_change": "against leaking, step 20"}
    few = found.pictures["val"].within([f"val-{i:03d}" for i in range(20)])
    assert few.too_few("val").reason.endswith(
        "(4 pictures left out: near one that a run was trained on)"
    )


@pytest.mark.parametrize(
    ("val", "count", "says"),
    [
        (36, 5, "without their groups 31 are left, and 32 on one side are needed"),
        (60, 13, "with their groups that is 22% of all groups, more than the 20% that new data"),
    ],
)
def test_too_many_near_training_pictures_are_refused(tmp_path, results, val, count, says):
    runs = Planted(tmp_path, results)
    runs.curate("data", val=val)
    trained_on(runs, count, val)
    with pytest.raises(UserError, match=says) as refused:
        opened_against(runs, "leaking")
    said = str(refused.value)
    assert f"leaking was trained on {count} of the {val} held-out pictures in common" in said
    assert "'val-000' equals its training picture 'train-" in said
    assert "accelerate launch finetune/train.py data.run=second run.name=NEW" in said
    assert "split.held_out=FILE" in said


def test_as_many_as_new_data_may_join_are_not_refused(tmp_path, results):
    runs = Planted(tmp_path, results)
    runs.curate("data", val=60)
    trained_on(runs, 12, 60)
    assert len(opened_against(runs, "leaking").pictures["val"].keys) == 48


def test_losses_in_other_units_are_refused(runs):
    runs.run("old")
    found = opened_against(runs)
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


def test_a_run_of_which_pictures_were_removed_is_compared_on_the_others(runs):
    runs.run("old", data="data")
    folder, old = runs.root / "data" / "curate", runs.root / "old" / "finetune"
    before = read_manifest(folder)
    old.mkdir(exist_ok=True)
    (old / "config.yaml").write_text("data:\n  run: data\n")
    shards = open_judged(runs.root / "old").origin["shards"]
    trained_on_table.write(old, folder, before, shards)
    rewrite(folder, "val", lambda rows: rows[rows["key"] != "val-003"])
    rewrite(folder, "train", lambda rows: rows[rows["key"] != "train-002"])
    changed = tuple(replace(shard, sha256="f" * 64) for shard in before.shards)
    write_manifest(folder, replace(before, shards=changed))
    found = opened_against(runs)
    assert len(found.pictures["val"].keys) == 39
    assert [row["key"] for row in open_judged(runs.root / "old").removed] == [
        "train-002",
        "val-003",
    ]
    (old / trained_on_table.FILE).unlink()
    with pytest.raises(UserError, match="was curated again after"):
        opened_against(runs)
