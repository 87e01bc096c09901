"""The command: its arguments, and what it says when a stage is missing."""

from pathlib import Path

import pytest
import torch

from workflows.starter import __main__ as starter
from workflows.starter.architecture import build_clip


def test_every_stage_is_a_choice() -> None:
    assert list(starter.STAGES) == [
        *("meaning", "clip", "image", "vae", "unet", "export", "measure"),
    ]
    assert starter.parse_arguments([]).stage == "all"
    assert starter.parse_arguments(["vae", "--threads", "1"]).threads == 1
    with pytest.raises(SystemExit):
        starter.parse_arguments(["wae"])


def test_a_missing_stage_says_what_to_run(tmp_path: Path) -> None:
    shop = starter.Workshop(tmp_path, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match=r"workflows\.starter clip"):
        shop.trained("clip", build_clip)
