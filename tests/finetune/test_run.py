"""Whole runs of a tiny model: what they leave, how they resume, when they stop."""

from __future__ import annotations

from finetune import metrics


def test_a_run_leaves_what_the_design_says(make_config, run_training, capsys):
    config = make_config(method="lora")
    run_training(config)
    names = {path.name for path in config.folder.iterdir()}
    assert names == {
        "cache",
        "checkpoints",
        "config.yaml",
        "export",
        "heldout.npz",
        "metrics.jsonl",
    }
    print(metrics.read(config.folder / "metrics.jsonl"))
    print(capsys.readouterr().out)
