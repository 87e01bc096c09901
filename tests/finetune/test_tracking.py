"""The curves of a training in TensorBoard are those of metrics.jsonl, whatever happened to it."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune import metrics
from finetune.run import _tracked
from tests.curate.run.test_tracking import event_files, shown

__all__ = ["shown"]


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


def logged(config):
    """The numbers of metrics.jsonl by tag and step, as single precision has them."""
    found = {}
    for record in metrics.read(config.folder / "metrics.jsonl"):
        for name, value in record.items():
            if name not in ("step", "samples_seen") and value is not None:
                curve = found.setdefault(f"finetune/{name}", {})
                curve[record["step"]] = float(np.float32(value))
    return found


def test_a_training_logs_what_metrics_jsonl_has(make_config, run_training, shown, capsys):
    config = make_config(tracker="tensorboard")
    run_training(config)
    found = shown(config.folder)
    assert found == logged(config)
    assert {"finetune/loss", "finetune/lr", "finetune/heldout_relative"} < found.keys()
    assert [*found["finetune/heldout_relative"]] == [0, 4, 8]
    before = event_files(config.folder)
    run_training(config)
    out = capsys.readouterr()
    assert "is complete" in out.out
    assert "failed" not in out.err
    assert event_files(config.folder) == before


def test_a_resumed_training_shows_each_step_once(make_config, run_training, shown, monkeypatch):
    """Killed after update 7, of which the checkpoint of update 4 knows nothing."""
    config = make_config(tracker="tensorboard")
    real = metrics.append

    def killed(path, record):
        real(path, record)
        if record["step"] == 7:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "append", killed)
        with pytest.raises(Killed):
            run_training(config)
    assert max(shown(config.folder)["finetune/loss"]) == 6
    run_training(config)
    assert shown(config.folder) == logged(config)
    assert len(event_files(config.folder)) == 1


def test_a_finished_training_gets_its_curves_later(make_config, run_training, shown):
    config = make_config()
    run_training(config)
    assert not (config.folder / "tracking").exists()
    config.tracker = "tensorboard"
    run_training(config)
    assert shown(config.folder) == logged(config)


def test_only_the_first_process_logs(make_config):
    config = make_config(tracker="tensorboard")
    accelerator = SimpleNamespace(is_main_process=False)
    run = SimpleNamespace(accelerator=accelerator, config=config, folder=config.folder, curves=None)
    with _tracked(run):
        assert run.curves is None
    assert not config.folder.exists()
