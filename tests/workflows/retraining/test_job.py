"""Whole retrainings with fake commands: what is done, in which order, and what stays."""

import json

import pytest

from curate.run.schema import Busy, UserError
from workflows.retraining import commands, promotion
from workflows.retraining.record import Record
from workflows.retraining.steps import Failed


def given(team, name):
    """The settings of the last command of a kind."""
    word = {"curate": "curate", "evaluate": "evaluate"}.get(name)
    lines = [
        line
        for line in team.commands.lines
        if (line[2] == word or (not word and "train.py" in line[1]))
    ]
    return dict(text.split("=", 1) for text in lines[-1] if "=" in text)


def record(team, run):
    return Record.load(team.series.run_dir(run))


def test_the_first_run_is_promoted_and_the_next_start_has_nothing_to_do(team):
    first = team.retrain()
    assert (first.outcome, first.run, first.current) == ("promoted", "mine-0001", "mine-0001")
    assert first.sentence.startswith("Step 450 has 6.1 % less loss than the base model")
    assert team.commands.ran == [f"{step} mine-0001" for step in ("curate", "finetune", "evaluate")]
    assert team.series.current().export == "mine-0001/finetune/export"
    found = record(team, "mine-0001")
    assert (found.outcome, found.kept, found.export) == ("promoted", 450, "finetune/export")
    assert {name: step.exit_code for name, step in found.steps.items()} == {
        "curate": 0, "finetune": 0, "evaluate": 0,
    }  # fmt: skip
    assert (found.start_from, found.compared_with) == ("", "")
    assert team.series.run_dir("mine-0001").joinpath("inputs.tsv").is_file()
    again = team.retrain()
    assert (again.outcome, again.run, again.current) == ("nothing_to_do", None, "mine-0001")
    assert "when mine-0001 ended (it was promoted)" in again.sentence
    assert len(team.commands.ran) == 3
    assert team.events() == [("promoted", "mine-0001", "mine-0001")]


def test_the_next_one_is_compared_with_the_promoted_and_begins_with_the_base(team):
    team.retrain()
    assert not {"gate.against", "method.init"} & {*given(team, "evaluate"), *given(team, "train")}
    team.add("e")
    second = team.retrain()
    assert (second.outcome, second.current) == ("promoted", "mine-0002")
    assert second.sentence.endswith("It was compared with mine-0001 on the same pictures.")
    assert second.changes == tuple(f"{team.pictures}/e.{end}: new" for end in ("png", "txt"))
    assert given(team, "evaluate")["gate.against"] == "mine-0001"
    assert "method.init" not in given(team, "train")
    assert team.series.current().previous == "mine-0001"


def test_it_begins_with_the_promoted_export_where_asked(team):
    team.retrain(start_from="promoted")
    assert "method.init" not in given(team, "train")  # nothing was promoted yet
    team.add("e")
    team.retrain(start_from="promoted")
    start = team.series.run_dir("mine-0001") / "finetune" / "export"
    assert given(team, "train")["method.init"] == str(start)
    assert start.is_dir()
    assert record(team, "mine-0002").start_from == "mine-0001"


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("gate", "kept", "outcome", "says"),
    [
        ("failed", 450, "rejected", "The gate failed (a_rule: -6.1 %, has to be upper bound < 0 %). Step"),
        ("undecided", 450, "undecided", "The gate is undecided (a_rule: -6.1 %"),
        ("passed", 0, "rejected", "No checkpoint is better than the base. "),
        ("warned", 0, "rejected", "No checkpoint is better than the base. "),
    ],
)  # fmt: skip
def test_what_is_not_promoted_leaves_the_pointer_as_it_is(team, gate, kept, outcome, says):
    team.retrain()
    pointer = (team.series.folder / "current.json").read_bytes()
    team.commands.gate, team.commands.kept = gate, kept
    team.add("e")
    found = team.retrain()
    assert (found.outcome, found.run, found.current) == (outcome, "mine-0002", "mine-0001")
    assert found.sentence.startswith(says)
    assert (team.series.folder / "current.json").read_bytes() == pointer
    assert team.events()[-1] == (outcome, "mine-0002", "mine-0001")
    assert record(team, "mine-0002").export == ("finetune/export" if kept else "")
    assert team.retrain().outcome == "nothing_to_do"
    assert f"it was {outcome}" in team.retrain().sentence


def test_a_gate_that_warns_promotes(team):
    team.commands.gate = "warned"
    assert team.retrain().sentence.endswith(
        "The gate warns (a_rule: -6.1 %, has to be upper bound < 0 %)."
    )
    assert team.current() == "mine-0001"


def test_what_the_gate_judged_is_promoted_though_an_earlier_checkpoint_would_do(team):
    team.commands.kept = 225
    team.retrain()
    assert record(team, "mine-0001").kept == 450
    assert "What is promoted is step 450, the best" in record(team, "mine-0001").sentence
    assert team.series.current().export == "mine-0001/finetune/export"
    assert (team.root / team.series.current().export / "weights.safetensors").is_file()


def test_settings_that_could_not_be_compared_are_refused_before_anything_is_done(team):
    team.retrain()
    ran, team.precision = len(team.commands.ran), "bf16"
    with pytest.raises(
        UserError,
        match=r"evaluate\.precision was no for mine-0001 and is bf16: .*compare_with=base",
    ):
        team.retrain()
    assert len(team.commands.ran) == ran
    found = team.retrain(compare_with="base")
    assert (found.outcome, found.run) == ("promoted", "mine-0002")
    assert "gate.against" not in given(team, "evaluate")


def test_what_is_promoted_by_hand_meanwhile_is_what_an_open_run_is_compared_with(team):
    team.retrain()
    team.add("e")
    team.retrain()
    team.add("f")
    team.retrain(until="evaluate")
    assert given(team, "evaluate")["gate.against"] == "mine-0002"
    promotion.roll_back(team.series, print)
    team.retrain()
    assert given(team, "evaluate")["gate.against"] == "mine-0001"
    assert record(team, "mine-0003").compared_with == "mine-0001"


def test_an_open_run_that_began_with_what_is_no_longer_promoted_is_given_up(team):
    team.retrain()
    team.add("e")
    team.retrain()
    team.add("f")
    team.retrain(start_from="promoted", until="finetune")
    promotion.roll_back(team.series, print)
    assert team.retrain(start_from="promoted").run == "mine-0004"
    assert (
        "it began with mine-0002, and mine-0001 is promoted by now"
        in record(team, "mine-0003").sentence
    )


def test_a_run_that_something_else_than_lasting_changes_started_is_given_up(team):
    team.retrain()
    away = team.pictures.rename(team.pictures.with_name("away"))
    team.commands.ends["curate"] = 2
    with pytest.raises(UserError):
        team.retrain()
    team.commands.ends.clear()
    away.rename(team.pictures)
    found = team.retrain()
    assert found.outcome == "nothing_to_do"
    assert record(team, "mine-0002").outcome == "abandoned"
    team.add("e")
    assert team.retrain().run == "mine-0003"


def test_data_that_came_before_the_curation_ended_are_in_its_record(team):
    team.commands.ends["curate"] = -9
    with pytest.raises(Failed):
        team.retrain()
    team.commands.ends.clear()
    team.add("e")
    assert team.retrain().run == "mine-0001"
    assert team.retrain().outcome == "nothing_to_do"


@pytest.mark.parametrize("last", ["curate", "finetune", "evaluate"])
def test_until_a_step_and_on_from_there(team, last):
    steps = ["curate", "finetune", "evaluate"]
    done = steps[: steps.index(last) + 1]
    for _ in range(2):
        found = team.retrain(until=last)
        assert (found.outcome, found.sentence) == ("started", f"mine-0001 is done up to {last}")
        assert team.commands.ran == [f"{step} mine-0001" for step in done]
        assert team.current() is None
    assert team.retrain(why=True).sentence.startswith("mine-0001 is unfinished; ")
    assert team.retrain().outcome == "promoted"
    assert team.commands.ran == [f"{step} mine-0001" for step in steps]


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("step", ["curate", "finetune", "evaluate", "diff"])
@pytest.mark.parametrize(
    ("code", "error"), [(2, UserError), (75, Busy), (70, Failed), (-9, Failed)]
)
def test_a_step_that_fails_is_done_again(team, step, code, error):
    team.retrain()
    team.add("e")
    team.commands.kept = 225
    team.commands.ends[step] = code
    with pytest.raises(
        error, match=f"{step} of mine-0002 ended with exit code {code}; what it said"
    ):
        team.retrain()
    assert team.current() == "mine-0001"
    del team.commands.ends[step]
    assert team.retrain().current == "mine-0002"
    assert team.commands.ran.count(f"{step} mine-0002") == 2


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_evaluation_that_left_no_report_is_not_done(team, code):
    """A traceback ends in 1, as a failed gate does."""
    team.commands.ends["evaluate"] = code
    with pytest.raises(Failed, match=f"evaluate of mine-0001 ended with exit code {code}"):
        team.retrain()
    team.commands.ends.clear()
    assert team.retrain().outcome == "promoted"


def test_a_report_that_was_damaged_is_made_again(team):
    team.retrain(until="evaluate")
    report = team.series.run_dir("mine-0001") / "evaluate" / "report.json"
    report.write_text(report.read_text().replace("passed", "failed"))
    assert team.retrain().outcome == "promoted"
    assert team.commands.ran.count("evaluate mine-0001") == 2


def test_an_interrupted_run_goes_on_with_its_data_and_the_next_takes_the_new(team):
    team.retrain(until="curate")
    team.add("e")
    assert team.retrain().run == "mine-0001"
    assert team.commands.ran.count("curate mine-0001") == 1
    found = team.retrain()
    assert (found.run, len(found.changes)) == ("mine-0002", 2)


@pytest.mark.parametrize("what", ["setting", "code", "removal"])
def test_an_interrupted_run_is_given_up_when_what_it_is_made_by_changes(team, what):
    from curate.run.removals import Removals, write_removals

    team.retrain(until="finetune")
    if what == "setting":
        team.lr = 2.0
    elif what == "code":
        (team.code / "module.py").write_text("2")
    else:
        folder = team.series.run_dir("mine-0001") / "curate"
        write_removals(folder, Removals(keys=frozenset({"a"})))
    assert team.retrain().run == "mine-0002"
    assert [event for event, *_ in team.events()] == ["abandoned", "promoted"]
    assert record(team, "mine-0001").outcome == "abandoned"
    assert record(team, "mine-0001").sentence.startswith("Given up before it was judged")
    assert "mine-0002" in team.retrain().sentence


def test_settings_that_change_back_leave_nothing_to_do(team):
    team.retrain()
    team.lr = 2.0
    team.retrain(until="curate")
    team.lr = 1.0
    found = team.retrain()
    assert found.outcome == "nothing_to_do"
    assert "when mine-0001 ended" in found.sentence
    assert team.events()[-1] == ("abandoned", "mine-0002", "mine-0001")


def test_a_judged_run_ends_although_settings_changed(team, monkeypatch):
    """Else one that is promoted already would be given up."""
    with monkeypatch.context() as patch:
        patch.setattr("workflows.retraining.series.Series.add", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            team.retrain()
    assert team.current() == "mine-0001"
    team.lr = 2.0
    assert team.retrain().run == "mine-0001"
    assert team.events() == [("promoted", "mine-0001", "mine-0001")]
    assert team.retrain().run == "mine-0002"


def _interrupted(*_, **__):
    raise KeyboardInterrupt


def test_why_says_what_would_start_and_changes_nothing(team):
    def files():
        return {
            p: (p.stat().st_mtime_ns, p.stat().st_ino)
            for p in team.root.rglob("*")
            if p.name != ".lock"
        }

    assert team.retrain(why=True).sentence == "nothing was retrained in this series yet"
    assert not team.root.exists()
    team.retrain()
    team.lr = 3.0
    team.add("e")
    before = files()
    found = team.retrain(why=True)
    assert found.outcome == "would_start"
    assert found.sentence == "3 changes would start a retraining"
    assert found.changes[0] == "train: optim.lr: 1.0, now 3.0"
    team.retrain(why=True, fingerprint="content")
    assert files() == before
    team.lr, _ = 1.0, [(team.pictures / f"e.{end}").unlink() for end in ("png", "txt")]
    assert team.retrain(why=True).outcome == "nothing_to_do"
    assert files() == before


def test_one_at_a_time(team):
    with team.opened(), pytest.raises(Busy, match=r"another process is at work in .*mine-series"):
        team.retrain()


def test_inputs_that_cannot_be_read_start_a_retraining_and_say_so(team):
    team.retrain()
    (team.series.run_dir("mine-0001") / "inputs.json").write_text("{}")
    found = team.retrain()
    assert found.run == "mine-0002"
    assert found.changes == ("mine-0001 does not say what it was made from",)


def test_a_promoted_run_that_is_gone_is_said_before_hours_are_spent(team):
    team.retrain()
    team.series.run_dir("mine-0001").rename(team.root / "elsewhere")
    with pytest.raises(UserError, match=r"finetune/export is gone, which .*current\.json names"):
        team.retrain()
    assert team.runs() == ["elsewhere"]
    (team.root / "elsewhere").rename(team.series.run_dir("mine-0001"))
    assert team.retrain().outcome == "nothing_to_do"


@pytest.mark.parametrize("name", ["current.json", "history.jsonl"])
def test_a_damaged_file_of_the_series_stops_before_anything(team, name):
    team.retrain()
    path = team.series.folder / name
    path.write_bytes(path.read_bytes()[:-30] + b"\n")
    before = path.read_bytes()
    team.add("e")
    for options in ({}, {"why": True}):
        with pytest.raises(UserError, match=f"{name}.* is damaged"):
            team.retrain(**options)
    assert path.read_bytes() == before
    assert team.runs() == ["mine-0001"]


def test_a_damaged_record_is_named(team):
    team.retrain()
    path = team.series.run_dir("mine-0001") / "retrain.json"
    path.write_text(path.read_text().replace("promoted", "rejected"))
    with pytest.raises(UserError, match=r"retrain\.json is damaged"):
        team.retrain()


def test_what_is_typed_is_noted_without_secrets(team):
    url, command = "https://hooks.example.org/T0/geheim", "curl -H geheim"
    typed = [
        "experiment=x.yaml",
        f"notify.url={url}",
        f"+notify.command={command}",
        "hub.token=geheim",
    ]
    commands.remember([*typed, f"notify={{url: {url}}}"], {})
    team.retrain()
    for path in team.root.rglob("*.json"):
        assert "geheim" not in path.read_text(), path
    noted = json.loads((team.series.run_dir("mine-0001") / "retrain.json").read_bytes())[
        "arguments"
    ]
    assert noted == [
        "experiment=x.yaml",
        "notify.url=***",
        "+notify.command=***",
        "hub.token=***",
        "notify=***",
    ]
