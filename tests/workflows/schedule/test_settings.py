"""Settings come from variables of the environment, and wrong ones are refused."""

import sys

import pytest

from workflows.schedule.settings import WEEKLY, Settings, name_of, read


def test_without_any_the_demo_is_retrained_every_week():
    command = (sys.executable, "-m", "workflows.retrain")
    assert read({}) == Settings(("demo",), WEEKLY, "UTC", 0, (), command)


def test_all_variables():
    said = read(
        {
            "DARKROOM_EXPERIMENT": "my/photos.yaml 'my/old drawings.yaml'",
            "DARKROOM_CRON": "0 4 1 * *",
            "DARKROOM_TIMEZONE": "Europe/Berlin",
            "DARKROOM_LOOK_S": "600",
            "DARKROOM_ARGUMENTS": "'run.root=/srv/my runs' keep=5",
            "DARKROOM_COMMAND": "ssh gpu retrain",
        }
    )
    assert said == Settings(
        ("my/photos.yaml", "my/old drawings.yaml"),
        "0 4 1 * *",
        "Europe/Berlin",
        600,
        ("run.root=/srv/my runs", "keep=5"),
        ("ssh", "gpu", "retrain"),
    )


def test_names_are_of_letters_digits_and_underscores():
    assert name_of("my/photos-2026 (new).yaml") == "photos_2026__new_"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DARKROOM_LOOK_S", "10min"),
        ("DARKROOM_LOOK_S", "-1"),
        ("DARKROOM_EXPERIMENT", ""),
        ("DARKROOM_EXPERIMENT", "a/mine.yaml b/mine.yaml"),
    ],
)
def test_a_wrong_one_is_named(variable, value):
    with pytest.raises(ValueError, match=f"^{variable}={value}"):
        read({variable: value})
