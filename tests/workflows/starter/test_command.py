"""The command: its arguments, required packages and device."""

import pytest

from curate.run.schema import UserError
from workflows.starter import __main__ as starter


def test_every_stage_is_a_choice() -> None:
    assert list(starter.STAGES) == [
        *("meaning", "clip", "image", "vae", "unet", "placed", "export", "measure"),
    ]
    assert starter.parse_arguments([]).stage == "all"
    assert starter.parse_arguments(["vae", "--threads", "1"]).threads == 1
    with pytest.raises(SystemExit):
        starter.parse_arguments(["wae"])


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "find_spec", lambda name: None if name == "emoji" else object())
    with pytest.raises(
        UserError, match=r'^emoji missing; type: pip install -c constraints.txt "darkroom\[demo\]"'
    ):
        starter.require_packages()


def test_an_unusable_device_is_an_error() -> None:
    assert starter.checked_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device gpu cannot be used"):
        starter.checked_device("gpu")
