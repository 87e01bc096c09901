"""After the verdict: the chosen checkpoints and the newest stay, the others go on request."""

from __future__ import annotations

import sys

import pytest

from curate.run import checksums, cli
from curate.run.files import write_certified
from finetune import prune
from finetune.checkpoint import list_checkpoints
from tests.finetune.test_checkpoint import stored

STEPS = [1, 2, 3, 4, 5]


@pytest.fixture
def run_dir(tmp_path):
    """Five checkpoints of a full training, of which the fourth is the best."""
    folder = tmp_path / "runs" / "mine" / "finetune"
    for step in STEPS:
        stored(folder, step, 0.9 if step != 4 else 0.8, keep=2, average=True)
    configure(folder.parent, "auto", "full")
    checksums.write(folder)
    return folder.parent


def configure(run_dir, keep, method):
    text = f"checkpoint:\n  keep: {keep}\nmethod:\n  name: {method}\n"
    (run_dir / "finetune" / "config.yaml").write_text(text)


def judged(run_dir, kept, exported, last):
    verdict = {"kept": kept, "exported": exported, "last": last}
    write_certified(run_dir / "evaluate" / "report.json", {"verdict": verdict})


def steps(run_dir):
    return [found.step for found in list_checkpoints(run_dir / "finetune")]


@pytest.fixture
def command(monkeypatch, capsys, run_dir):
    """Type it; returns the exit code and what was printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prune", str(run_dir), *arguments])
        code = 0
        try:
            cli.run(prune.main)
        except SystemExit as leaving:
            code = leaving.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_what_the_verdict_chose_and_the_newest_stay(run_dir, command):
    judged(run_dir, kept=2, exported=4, last=5)
    code, said = command("--dry-run")
    assert (code, steps(run_dir)) == (0, STEPS)
    assert "2 checkpoints would be deleted" in said
    code, said = command()
    assert (code, steps(run_dir)) == (0, [2, 4, 5])
    assert "2 checkpoints deleted" in said
    assert "step-00000001, step-00000003" in said
    assert list(checksums.problems(run_dir / "finetune")) == []
    assert all(found.weights() for found in list_checkpoints(run_dir / "finetune"))
    assert "0 checkpoints deleted" in command()[1]


def test_nothing_goes_before_a_verdict_on_the_last_checkpoint(run_dir, command):
    code, said = command()
    assert (code, steps(run_dir)) == (2, STEPS)
    assert "was not judged" in said
    assert f"python -m evaluate run.name=mine run.root={run_dir.parent}" in said
    judged(run_dir, kept=2, exported=4, last=4)
    code, said = command()
    assert (code, steps(run_dir)) == (2, STEPS)
    assert "trained on after it was judged, to step 5" in said


def test_where_everything_is_kept_the_command_leaves_the_last(run_dir, command):
    configure(run_dir, "null", "full")
    assert prune.kept_states(run_dir) is None
    configure(run_dir, "auto", "lora")
    assert prune.kept_states(run_dir) is None
    judged(run_dir, kept=0, exported=4, last=5)
    assert command()[0] == 0
    assert steps(run_dir) == [4, 5]
