"""What the curation found across its split is said, refused, or passed over, before training."""

from __future__ import annotations

import pytest

from curate.run.manifest import read_manifest, write_funnel
from curate.run.schema import UserError
from finetune import doctor, leaks
from finetune.config import DoctorConfig


def found(val, test=(0, 40)):
    sides = {"val": val, "test": test}
    names = ("with_sibling_in_train", "looked_at")
    return {
        "split": {"leaks": {side: dict(zip(names, of, strict=True)) for side, of in sides.items()}}
    }


@pytest.fixture(autouse=True)
def enough_groups(monkeypatch):
    """So few are a matter of another check."""
    monkeypatch.setattr("finetune.enough.examine", lambda *_: None)


def examine(config, funnel, reaction="warn"):
    write_funnel(config.curate_dir, funnel)
    config.doctor.leaks = reaction
    doctor.examine(config, read_manifest(config.curate_dir))


@pytest.mark.parametrize(("twins", "says"), [((1, 40), False), ((2, 40), True), ((40, 40), True)])
def test_a_twentieth_is_noticeable(make_config, capsys, twins, says):
    examine(make_config(), found(twins))
    text = capsys.readouterr().out
    assert (f"warning: {twins[0]} of 40 pictures in val have a sibling in train" in text) == says
    assert ("column named group" in text) == says
    assert says or not text


def test_test_counts_too(make_config, capsys):
    examine(make_config(), found((0, 40), (9, 40)))
    assert "9 of 40 pictures in test" in capsys.readouterr().out


def test_refuse_names_the_way_out(make_config):
    with pytest.raises(UserError, match=r"4 of 40 pictures in val .*type doctor\.leaks=warn$"):
        examine(make_config(), found((4, 40)), "refuse")
    examine(make_config(), found((1, 40)), "refuse")


def test_off_says_nothing(make_config, capsys):
    examine(make_config(), found((4, 40)), "off")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("funnel", [{}, {"split": {"leaks": {}}}, found((0, 0), (0, 0))])
def test_not_measured_is_said(make_config, capsys, funnel):
    examine(make_config(), funnel, "refuse")
    assert "note: whether held-out pictures have near twins" in capsys.readouterr().out


def test_one_process_of_several_says_it_and_all_refuse(make_config, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    examine(make_config(), found((4, 40)))
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError):
        leaks.examine(make_config(**{"doctor.leaks": "refuse"}))


def test_an_unknown_reaction():
    with pytest.raises(UserError, match=r"doctor\.leaks=perhaps.*refuse, warn, off"):
        DoctorConfig(leaks="perhaps")
