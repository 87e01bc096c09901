"""What a retraining is made from, and which of it counts as changed."""

import json
import os
from dataclasses import replace

import pytest

from curate.run.removals import Removals, write_removals
from workflows.retraining import inputs
from workflows.retraining.commands import Settings
from workflows.retraining.inputs import Inputs


@pytest.fixture
def gathered(team):
    """Look at everything as it is now."""

    def look(before=None, content=False, start_from="base", **composed):
        known = team.settings
        merged = {
            name: {**known.composed[name], **composed.get(name, {})} for name in known.composed
        }
        settings = replace(known, composed=merged)
        return inputs.gather("typed", settings, start_from, team.series, before, content)

    return look


def said(before, now):
    return [(c.kind, c.sentence()) for c in inputs.changes(before, now)]


def test_it_is_read_as_it_was_written(gathered, tmp_path):
    found = gathered()
    found.save(tmp_path / "new" / "run")
    assert Inputs.load(tmp_path / "new" / "run") == found
    assert said(found, gathered(found)) == []
    assert found.digest() == gathered().digest()
    assert said(None, found) == [("first", "nothing was retrained in this series yet")]


@pytest.mark.parametrize("name", ["inputs.json", "inputs.tsv"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "other"])
def test_where_it_is_damaged_it_is_none(gathered, tmp_path, name, damage):
    gathered().save(tmp_path)
    path = tmp_path / name
    text = path.read_text()
    path.write_text(
        {
            "cut": text[:-40],
            "empty": "",
            "other": text.replace("base", "bass").replace("a.png", "b.png"),
        }.get(damage, "")
    )
    if damage == "gone":
        path.unlink()
    assert Inputs.load(tmp_path) is None


def test_one_of_another_version_is_none(gathered, tmp_path):
    from curate.run.files import read_json, write_certified

    gathered().save(tmp_path)
    content = read_json(tmp_path / "inputs.json")
    for change in ({"roots": [{"kind": "data"}]}, {"packages": None}):
        write_certified(tmp_path / "inputs.json", {**content, **change})
        found = Inputs.load(tmp_path)
        assert found is None or found.packages is None
    del content["settings"]
    write_certified(tmp_path / "inputs.json", content)
    assert Inputs.load(tmp_path) is None


def test_files_count_by_content(team, gathered):
    before = gathered()
    a, b = team.pictures / "a.png", team.pictures / "b.png"
    os.utime(a)
    assert said(before, gathered(before)) == []
    a.write_bytes(b"A")
    b.unlink()
    team.add("z")
    assert said(before, gathered(before)) == [
        ("data", f"{a}: changed"),
        ("data", f"{b}: gone"),
        ("data", f"{team.pictures}/z.png: new"),
        ("data", f"{team.pictures}/z.txt: new"),
    ]
    assert gathered(before).digest() != before.digest()


def test_a_change_that_keeps_size_and_times_needs_content(team, gathered, monkeypatch):
    """As a file system might have it whose times are coarse."""
    before = gathered()
    stats = before.files.stats
    (team.pictures / "a.png").write_bytes(b"A")
    monkeypatch.setattr(inputs.input_files, "listed", lambda roots, without="": stats)
    assert said(before, gathered(before)) == []
    assert said(before, gathered(before, content=True)) == [
        ("data", f"{team.pictures}/a.png: changed")
    ]


def test_many_files_are_one_sentence(team, gathered):
    before = gathered()
    team.add(*(f"new{n:03d}" for n in range(500)))
    ((kind, sentence),) = said(before, gathered(before))
    first = f"{team.pictures}/new000.png, {team.pictures}/new000.txt"
    assert (kind, sentence) == ("data", f"1,000 files ({first} and others): new")


def test_settings_code_packages_and_the_start_count(team, gathered, monkeypatch):
    before = gathered()
    team.lr = 2.0
    assert said(before, gathered(before)) == [("setting", "train: optim.lr: 1.0, now 2.0")]
    team.lr = 1.0
    assert said(before, gathered(before, start_from="promoted")) == [
        ("setting", "start_from: base, now promoted")
    ]
    (team.code / "module.py").write_text("2")
    monkeypatch.setattr("curate.run.provenance._revision", lambda: "5678")
    assert said(before, gathered(before)) == [
        ("code", f"{team.code}/module.py: changed"),
        ("code", "revision: 1234, now 5678"),
    ]
    (team.code / "module.py").write_text("1")
    assert said(before, gathered(before)) == []  # a commit that changes nothing of the code


def test_a_package_that_comes_or_goes_counts(gathered, monkeypatch):
    monkeypatch.setattr("curate.run.provenance._version", {"torch": "2.0"}.get)
    before = gathered()
    monkeypatch.setattr("curate.run.provenance._version", {"timm": "1.0"}.get)
    assert said(before, gathered(before)) == [
        ("package", "timm: 1.0"),
        ("package", "torch: 2.0, now gone"),
    ]


def test_secrets_are_not_written_down(gathered, tmp_path):
    gathered(curate={"hub": {"token": "geheim"}}).save(tmp_path)
    assert "not for you" not in (tmp_path / "inputs.json").read_text()
    assert "geheim" not in (tmp_path / "inputs.json").read_text()


def test_what_is_removed_counts_once_wherever_it_is_listed(team, gathered):
    before = gathered()
    for run in ("mine-0001", "mine-0002"):
        (team.series.run_dir(run) / "curate").mkdir(parents=True)
        write_removals(team.series.run_dir(run) / "curate", Removals(keys=frozenset({"a"})))
        ((kind, sentence),) = said(before, gathered(before))
        assert kind == "removal"
        assert sentence.startswith("removed pictures: 1 listed (digest ")
    after = gathered(before)
    write_removals(team.series.run_dir("mine-0002") / "curate", Removals())
    assert said(after, gathered(after)) == []
    assert inputs.refreshed(after, team.series).files.stats != after.files.stats


def paths(composed):
    settings = Settings("", {}, {"curate": {}, "train": {}, "evaluate": {}, **composed}, ())
    return [(root.path, root.pattern) for root in inputs._paths(settings)]


def test_a_setting_that_names_a_path_is_looked_at_as_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "latest").symlink_to("real")
    assert paths({"curate": {"dataset": {"root": "latest"}}}) == [(str(tmp_path / "latest"), False)]
    # a name of the hub, or a folder that is not there yet: it is seen as soon as it is
    absent = (str(tmp_path / "nobody" / "such"), False)
    assert paths({"train": {"model": {"path": "nobody/such"}}}) == [absent]
    (starter,) = paths({"train": {"model": {"path": "finetune/starter_ldm"}}})
    assert starter == (str(inputs.PACKAGES / "finetune" / "starter_ldm"), False)
    (clip,) = paths({"curate": {"clip": {"name": "local-dir:real"}}})
    assert clip == (str(tmp_path / "real"), False)


def test_patterns_stay_patterns_and_braces_are_each_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.tar").touch()
    found = paths({"curate": {"dataset": {"path": "{0..2}.tar"}}})
    assert found == [(str(tmp_path / f"{n}.tar"), False) for n in range(3)]
    assert paths({"curate": {"dataset": {"path": "*.tar"}}}) == [(str(tmp_path / "*.tar"), True)]
    both = paths({"curate": {"dataset": {"path": ["a/*.tar", "0.tar"]}}})
    assert both == [(str(tmp_path / "a/*.tar"), True), (str(tmp_path / "0.tar"), False)]


def test_the_head_is_json_without_the_files(gathered, tmp_path):
    gathered().save(tmp_path, quick=True)
    head = json.loads((tmp_path / "inputs.json").read_bytes())
    assert head["quick"] is True
    assert "files" not in head
