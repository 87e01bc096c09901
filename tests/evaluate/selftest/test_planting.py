"""Few training pictures are left, of as many groups as there are; commands that fail say where."""

from __future__ import annotations

from collections import Counter

import pytest

from evaluate.selftest import commands
from evaluate.selftest.commands import CommandFailed
from evaluate.selftest.planting import ordered, training_rows
from tests.finetune.conftest import curate


def test_the_first_pictures_are_of_different_groups():
    rows = [(f"key-{number}", f"group-{number % 5}") for number in range(20)]
    keys = ordered(rows, seed=1)
    assert sorted(keys) == sorted(key for key, _ in rows)
    groups = dict(rows)
    assert len({groups[key] for key in keys[:5]}) == 5
    assert ordered(rows[::-1], seed=1) == keys
    assert ordered(rows, seed=2) != keys


def test_rows_of_training_pictures(tmp_path):
    curate(tmp_path / "curate", {"train": 12, "val": 4})
    rows = training_rows(tmp_path / "curate")
    assert Counter(key.split("-")[0] for key, _ in rows) == {"train": 12}
    assert len({group for _, group in rows}) == 12


def test_a_command_that_fails(tmp_path):
    log = tmp_path / "logs" / "one.log"
    with pytest.raises(CommandFailed, match=r"curate\.remove ended with 2.*one\.log"):
        commands.run(log, commands.REMOVE, str(tmp_path / "nothing"), "--keys", "none")
    done = commands.run(log, commands.REMOVE, str(tmp_path), "--keys", "none", expected=None)
    assert done.code == 2
    assert done.error
    assert "error:" not in done.error
    assert log.read_text().count("$ python -m curate.remove") == 2


def test_progress_bars_are_left_out_of_the_output(tmp_path):
    module = tmp_path / "noisy.py"
    module.write_text("print('10 %\\r20 %\\rdone')")
    done = commands.run(
        tmp_path / "log", "timeit", "-n", "1", "-r", "1", f"exec(open({str(module)!r}).read())"
    )
    assert done.output.startswith("done\n")
