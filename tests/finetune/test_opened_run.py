"""A run that was trained, opened where it is now."""

from __future__ import annotations

from pathlib import Path

from finetune.opened_run import load_run


def test_a_run_that_was_moved_names_the_folder_it_is_in(make_config, run_training, tmp_path):
    config = make_config()
    run_training(config)
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    Path(config.run.folder).rename(moved)
    opened = load_run(moved).config
    assert opened.run.folder == moved
    assert opened.curate_dir == moved / "curate"
    assert opened.optim == config.optim
