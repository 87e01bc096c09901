"""Too few groups for a judgement: said before training, by the number that an evaluation takes."""

import pandas as pd
import pytest

from curate.decide.config import SMALLEST_JUDGED
from curate.decide.enough import too_few
from curate.run.finished import RECORD
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from evaluate.verdict import too_few as judged_too_few
from finetune import doctor, enough
from finetune.config import TrainConfig
from tests.evaluate.conftest import evidence


def examine(config: TrainConfig, seen: tuple[str, ...] = ()) -> None:
    enough.examine(config, read_manifest(config.curate_dir), seen)


def join(config: TrainConfig, side: str, first: int) -> None:
    """The first pictures of a side become one group."""
    (path,) = (config.curate_dir / "shards" / side).glob("000000.parquet")
    rows = pd.read_parquet(path)
    rows.loc[: first - 1, "duplicate_group"] = "one"
    rows.to_parquet(path)


@pytest.mark.parametrize(
    ("val", "train", "says"),
    [
        (SMALLEST_JUDGED, SMALLEST_JUDGED, ""),
        (SMALLEST_JUDGED - 1, 60, "held out for judging: 31 groups"),
        (SMALLEST_JUDGED, SMALLEST_JUDGED - 1, "to train on: 31 groups"),
    ],
)
def test_fewer_groups_than_a_verdict_takes_are_said(make_config, capsys, val, train, says):
    config = make_config(val=val, train=train)
    doctor.examine(config, read_manifest(config.curate_dir))
    out = capsys.readouterr().out
    assert (says in out) if says else ("groups of images" not in out)
    assert ("the verdict can only be inconclusive" in out) == bool(says)
    few = min(val, train)
    assert judged_too_few(evidence([1, 0.9], [1, 0.9], items=few)) == bool(says)


def test_groups_count_and_not_pictures(make_config, capsys):
    config = make_config(val=SMALLEST_JUDGED, train=40)
    join(config, "val", 2)
    examine(config)
    assert f"judging: {SMALLEST_JUDGED - 1} groups" in capsys.readouterr().out


def test_pictures_that_the_start_has_seen_do_not_count(make_config, capsys):
    config = make_config(val=SMALLEST_JUDGED, train=40)
    examine(config, ("val-003",))
    assert f"judging: {SMALLEST_JUDGED - 1} groups" in capsys.readouterr().out


def test_one_group_alone_is_refused_where_a_loss_is_asked_for(make_config, capsys):
    config = make_config(val=3, train=40)
    join(config, "val", 3)
    with pytest.raises(UserError, match=r"1 groups of images.*type heldout\.items=0$"):
        examine(config)
    config.heldout.items = 0
    examine(config)
    assert "warning: held out for judging: 1 groups" in capsys.readouterr().out


def test_nothing_is_said_where_nothing_is_to_be_judged(make_config, capsys):
    config = make_config(val=0)
    config.heldout.items = 0
    examine(config)
    assert capsys.readouterr().out == ""


def test_the_remedy_is_what_the_command_takes(make_config, capsys):
    config = make_config(val=4, train=120)
    examine(config)
    out = capsys.readouterr().out
    assert "hold out more: split.val=" in out
    assert "curate again under another run.name" in out
    (config.run.folder / RECORD).write_text("{}")
    examine(config)
    out = capsys.readouterr().out
    assert "hold out more: curate.split.val=" in out
    assert "type the same python -m workflows.retrain again" in out


def test_a_share_that_is_suggested_is_enough():
    for groups in (100, 160, 400, 10_000):
        share = float(too_few(0, groups).rpartition("split.val=")[2])
        assert share * groups >= SMALLEST_JUDGED
    assert "split.val" not in too_few(0, 60)
